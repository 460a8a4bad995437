import { createContext } from "react";

/** Whether what is shown belongs to somebody else: then nothing leads into it or changes it. */
export const ReadOnly = createContext(false);
