"""Failures in words for people."""

from temporalio.exceptions import ApplicationError


def cause(error: BaseException) -> str:
    """The failure in our own words: without the wrappers that Temporal puts around it, and not what lies below it."""
    while error.__cause__ is not None and not isinstance(error, ApplicationError):
        error = error.__cause__
    return str(getattr(error, "message", "") or error) or type(error).__name__
