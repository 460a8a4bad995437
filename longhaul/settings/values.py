"""Types of the settings' values, and URLs without their secrets."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode

# The password reaches to the last `@`: a URL that cannot be parsed may have several.
_PASSWORD = re.compile(r"(//[^:@/?#]*):.*@", re.DOTALL)
_SECRET_PARAMETER = re.compile(r"(?i)((?:pass\w*|pwd|secret|token|key|credential|signature)=)[^&#]*")


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


SPLIT_AT_COMMAS = BeforeValidator(_split_commas)
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Words = Annotated[list[str], NoDecode, SPLIT_AT_COMMAS]


def without_secrets(url: str) -> str:
    """A URL without its password and without query parameters that may be secret, for logs, errors and people.

    It also works on a URL that cannot be parsed, such as one whose password contains `/` or `#`.
    """
    return _SECRET_PARAMETER.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def parsable(url: str) -> str:
    """Reject a URL that cannot be parsed here, because the errors of its users would show parts of its password."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("a URL; write special characters of the password as %XX, for example %2F for /") from None
    return url
