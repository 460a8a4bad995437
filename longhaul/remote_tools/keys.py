"""How a tool worker proves that it has the task of a call, without any secret that it was given.

Each tool worker makes a key pair at its start and never stores it. The public key is part of its name at Temporal. The
server notes that name when it hands the worker a task, so who can sign with the key is who has the task. A proof names
one attempt at one call, and holds for a minute. Nothing of it is in a history that could be used: that has the public
key only.
"""

import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from typing import NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ALGORITHM = "EdDSA"
AUDIENCE = "longhaul-tool-call"
PROOF_S = 60.0
#: How far the clocks of two hosts may differ.
LEEWAY_S = 60.0
_SIGN = "#"


class Claim(NamedTuple):
    """What a proof says: that its signer has this attempt at this call."""

    remote_call_id: str
    attempt: int


class WorkerKey:
    """The key pair of this process."""

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.generate()

    def named(self, identity: str) -> str:
        """A worker's name at Temporal with the public key at its end."""
        public = urlsafe_b64encode(self._private.public_key().public_bytes_raw()).decode()
        return f"{identity}{_SIGN}{public}"

    def proof(self, claim: Claim) -> str:
        """A proof that this worker has an attempt at a call."""
        now = time.time()
        claims = {"sub": claim.remote_call_id, "attempt": claim.attempt, "aud": AUDIENCE, "exp": now + PROOF_S}
        return jwt.encode(claims, self._private, ALGORITHM)


def claimed(proof: str) -> Claim:
    """What a proof says, before anything of it is known to be true.

    Raises:
        jwt.InvalidTokenError: it is no proof.
    """
    return _claim(jwt.decode(proof, options={"verify_signature": False}))


def verified(proof: str, identity: str) -> Claim:
    """What a proof says, if the worker of this name at Temporal has signed it.

    Raises:
        jwt.InvalidTokenError: it has not, the proof is too old, or the name has no key.
    """
    _, _, encoded = identity.rpartition(_SIGN)
    try:
        key = Ed25519PublicKey.from_public_bytes(urlsafe_b64decode(encoded))
    except (ValueError, Error) as error:
        raise jwt.InvalidTokenError("the worker's name has no key") from error
    options = {"require": ["exp", "sub", "aud"]}
    return _claim(jwt.decode(proof, key, [ALGORITHM], audience=AUDIENCE, leeway=LEEWAY_S, options=options))  # type: ignore[arg-type]


def _claim(claims: dict[str, object]) -> Claim:
    call, attempt = claims.get("sub"), claims.get("attempt")
    if not isinstance(call, str) or not 0 < len(call) <= 64 or not call.isascii() or not call.isprintable():
        raise jwt.InvalidTokenError("it names no call")
    if not isinstance(attempt, int) or attempt < 1:
        raise jwt.InvalidTokenError("it names no attempt at a call")
    return Claim(call, attempt)
