"""Call tokens: what a tool worker shows to the API while it runs one call.

A token is bound to one attempt at one call of one turn. It is signed by the API, and it counts only while its own name
is in the call's row: not after the call was begun again, not after its end, and not for any other call. It lives in the
memory of its tool worker only; it is in no history, row or log.
"""

import secrets
import time

import jwt

from longhaul.auth import UnauthorizedError
from longhaul.db.remote_calls import CallToken

ALGORITHM = "HS256"
AUDIENCE = "longhaul-call-token"
#: A tool that takes longer gets another token, by a new proof.
LIFETIME_S = 600.0
_NAME_BYTES = 16


class CallTokens:
    """Makes and reads tokens; `secret`: the same in all processes of the API. Empty: one of this process."""

    def __init__(self, secret: str) -> None:
        self._secret = secret or secrets.token_hex(32)

    def new(self, remote_call_id: str, attempt: int) -> CallToken:
        """A token with a name of its own."""
        return CallToken(remote_call_id, attempt, secrets.token_hex(_NAME_BYTES))

    def signed(self, token: CallToken) -> str:
        """A token as its worker shows it."""
        claims = {"sub": token.remote_call_id, "attempt": token.attempt, "jti": token.token_id, "aud": AUDIENCE}
        return jwt.encode({**claims, "exp": time.time() + LIFETIME_S}, self._secret, ALGORITHM)

    def read(self, shown: str) -> CallToken:
        """What a shown token says.

        Raises:
            UnauthorizedError: it is none of ours, or too old.
        """
        options = {"require": ["exp", "sub", "jti", "aud"]}
        try:
            claims = jwt.decode(shown, self._secret, [ALGORITHM], audience=AUDIENCE, options=options)  # type: ignore[arg-type]
        except jwt.InvalidTokenError as error:
            raise UnauthorizedError(f"The call token is not valid: {error}.") from error
        return CallToken(claims["sub"], claims["attempt"], claims["jti"])
