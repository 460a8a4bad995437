"""Tools of MCP servers, by the official SDK. Loaded only where `LONGHAUL_MCP_CONFIG` names servers."""
