"""What a command has said: its beginning and its end, cut in the middle, without known secrets."""

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from longhaul.settings import Settings

HEAD_BYTES, TAIL_BYTES = 20_000, 40_000
#: Shorter ones would be found everywhere.
SECRET_MIN_CHARS = 6


class Output:
    """Keeps the first and the last bytes of what is said."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = secrets
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, said: bytes) -> None:
        room = HEAD_BYTES - len(self._head)
        self._head += said[:room]
        self._tail += said[room:] if room < len(said) else b""
        if (excess := len(self._tail) - TAIL_BYTES) > 0:
            del self._tail[:excess]
            self._left_out += excess

    @property
    def text(self) -> str:
        """All of it, for the model."""
        if not self._left_out:
            return redacted((self._head + self._tail).decode("utf-8", "replace"), self._secrets)
        head, tail = (redacted(part.decode("utf-8", "replace"), self._secrets) for part in (self._head, self._tail))
        return f"{head}\n[… {self._left_out} bytes left out; write to a file to keep everything …]\n{tail}"

    @property
    def last_line(self) -> str:
        """The newest line that says something, for people who watch."""
        lines = bytes(self._tail or self._head)[-2_000:].decode("utf-8", "replace").splitlines()
        return redacted(next((line for line in reversed(lines) if line.strip()), ""), self._secrets)


def secrets_of(settings: Settings) -> list[str]:
    """The secrets among the settings: keys, and passwords of addresses; the longest first."""
    values = (getattr(settings, name) for name in type(settings).model_fields)
    found = {value.get_secret_value() for value in values if isinstance(value, SecretStr)}
    for url in (settings.database_url, settings.redis_url):
        if password := urlsplit(url).password:
            found |= {password, unquote(password)}
    return sorted((secret for secret in found if len(secret) >= SECRET_MIN_CHARS), key=len, reverse=True)


def redacted(text: str, secrets: Sequence[str]) -> str:
    """`text` without these secrets."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
