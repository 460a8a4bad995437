"""Deterministic code only: what happens in a turn, and in which order. No I/O."""
