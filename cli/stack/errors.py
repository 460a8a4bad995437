"""Failures of the local stack, worded for the person at the terminal."""


class StackError(Exception):
    """Something the stack needs is missing or broken; the text names the cause and the remedy."""


__all__ = ["StackError"]
