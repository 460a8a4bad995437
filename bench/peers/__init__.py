"""Longhaul beside other libraries that run agents on Temporal: the same model, tool, server and machine."""
