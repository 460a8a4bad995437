"""Proofs of tool workers and call tokens: what is not signed by the right key, for this purpose and now, is refused."""

import time

import jwt
import pytest

from longhaul.auth import UnauthorizedError
from longhaul.remote_tools import keys, tokens
from longhaul.remote_tools.keys import Claim, WorkerKey
from longhaul.remote_tools.tokens import CallTokens

CLAIM = Claim("call", 3)
SECRET = "a secret that only this test knows, long enough"


def test_the_worker_of_that_name_has_signed() -> None:
    key = WorkerKey()
    proof = key.proof(CLAIM)
    assert keys.claimed(proof) == CLAIM
    assert keys.verified(proof, key.named("17@host-ab")) == CLAIM


@pytest.mark.parametrize("name", ["17@host-ab", "", "17@host-ab#", "17@host-ab#short", "#" + "A" * 43, "#ä", "#="])
def test_a_name_without_that_key_proves_nothing(name: str) -> None:
    with pytest.raises(jwt.InvalidTokenError):
        keys.verified(WorkerKey().proof(CLAIM), name)


def test_another_workers_proof_is_refused() -> None:
    with pytest.raises(jwt.InvalidTokenError):
        keys.verified(WorkerKey().proof(CLAIM), WorkerKey().named("17@host-ab"))


@pytest.mark.parametrize(
    "change",
    [
        {"exp": time.time() - keys.LEEWAY_S - 1},
        {"exp": None},
        {"aud": "longhaul-call-token"},
        {"sub": ""},
        {"sub": "x" * 65},
        {"sub": "a\x00b"},
        {"sub": "\u00e4"},
        {"attempt": 0},
        {"attempt": "1"},
        {"attempt": None},
    ],
)
def test_a_proof_that_says_something_else_is_refused(change: dict[str, object]) -> None:
    key = WorkerKey()
    claims = {"sub": "call", "attempt": 3, "aud": keys.AUDIENCE, "exp": time.time() + 60, **change}
    proof = jwt.encode({name: value for name, value in claims.items() if value is not None}, key._private, "EdDSA")
    with pytest.raises(jwt.InvalidTokenError):
        keys.verified(proof, key.named("17@host-ab"))


def test_a_proof_chooses_no_algorithm() -> None:
    """Else the public key, which histories show, would be a secret to sign with."""
    key = WorkerKey()
    name = key.named("17@host-ab")
    claims = {"sub": "call", "attempt": 3, "aud": keys.AUDIENCE, "exp": time.time() + 60}
    for forged in (jwt.encode(claims, name.rpartition("#")[2], "HS256"), jwt.encode(claims, "", "none")):
        with pytest.raises(jwt.InvalidTokenError):
            keys.verified(forged, name)


def test_a_token_is_read_by_its_own_secret_alone() -> None:
    made = CallTokens(SECRET)
    token = made.new("call", 2)
    assert CallTokens(SECRET).read(made.signed(token)) == token
    assert made.new("call", 2).token_id != token.token_id
    for other in (CallTokens(""), CallTokens(SECRET + "!")):
        with pytest.raises(UnauthorizedError):
            other.read(made.signed(token))


@pytest.mark.parametrize("change", [{"exp": 1}, {"exp": None}, {"aud": "longhaul"}, {"jti": None}, {"sub": None}])
def test_a_token_for_something_else_is_refused(change: dict[str, object]) -> None:
    claims = {"sub": "call", "attempt": 1, "jti": "t", "aud": tokens.AUDIENCE, "exp": time.time() + 60, **change}
    shown = jwt.encode({name: value for name, value in claims.items() if value is not None}, SECRET, "HS256")
    with pytest.raises(UnauthorizedError):
        CallTokens(SECRET).read(shown)
