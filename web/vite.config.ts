import tailwind from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

// `npm run dev` serves the page with hot reload and passes API calls on to a running Longhaul.
const api = process.env.LONGHAUL_API ?? "http://127.0.0.1:8700";

export default defineConfig({
  plugins: [react(), tailwind()],
  logLevel: "warn",
  build: { chunkSizeWarningLimit: 1500, target: "es2023", modulePreload: { polyfill: false }, assetsInlineLimit: 0 },
  server: { proxy: { "/v1": api, "/healthz": api } },
});
