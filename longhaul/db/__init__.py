"""Rows: the truth of every conversation, in SQLite or PostgreSQL."""
