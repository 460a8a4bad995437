"""Takes secrets out of texts that are shown, stored or logged."""

import base64
from urllib.parse import quote

import orjson

from longhaul.sandbox.output import redacted


class Redaction:
    """Knows the secrets that one tool call was given, and how they look in other encodings."""

    def __init__(self) -> None:
        self._forms: list[str] = []

    def add(self, secret: str) -> None:
        """Take this one out of texts from now on."""
        encoded = base64.b64encode(secret.encode()).decode()
        forms = {secret, quote(secret, safe=""), quote(secret), orjson.dumps(secret).decode()[1:-1], encoded}
        forms |= {encoded.rstrip("="), base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")}
        self._forms = sorted({*self._forms, *forms}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """`text` without the secrets."""
        return redacted(text, self._forms)
