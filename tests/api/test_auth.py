"""Tokens of an issuer with public keys: rotated keys work, invented ones cause no calls, outages lock no user out."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from longhaul import auth
from longhaul.auth import Authenticator, Caller, UnauthorizedError
from longhaul.errors import UnavailableError
from longhaul.settings import load_settings

ISSUER = "https://issuer"
CLAIMS = {"sub": "alice", "iss": ISSUER, "aud": "longhaul", "exp": 2**32}
Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Issuer:
    """Serves a key set, counts who asks, and can be out of order."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[str, Key]] = {}
        self.asked = 0
        self.broken = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                self.send_response(500 if issuer.broken else 200)
                self.end_headers()
                self.wfile.write(b"" if issuer.broken else json.dumps(issuer.document()).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"

    def add(self, name: str, algorithm: str) -> None:
        made: Key = ec.generate_private_key(ec.SECP256R1())
        if algorithm == "RS256":
            made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.keys[name] = (algorithm, made)

    def document(self) -> dict[str, Any]:
        public_keys = []
        for name, (algorithm, key) in self.keys.items():
            public: Any = key.public_key()
            kind = jwt.algorithms.RSAAlgorithm if algorithm == "RS256" else jwt.algorithms.ECAlgorithm
            public_keys.append({**kind.to_jwk(public, as_dict=True), "kid": name, "alg": algorithm, "use": "sig"})
        return {"keys": public_keys}

    def token(self, name: str, **claims: Any) -> str:
        algorithm, key = self.keys[name]
        return jwt.encode({**CLAIMS, **claims}, key, algorithm, headers={"kid": name})


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    thread = threading.Thread(target=issuer.server.serve_forever, daemon=True)
    thread.start()
    yield issuer
    issuer.server.shutdown()
    thread.join()
    issuer.server.server_close()


def authenticator(issuer: Issuer) -> Authenticator:
    return Authenticator(load_settings(auth="jwt", jwt_jwks_url=issuer.url, jwt_issuer=ISSUER, jwt_audience="longhaul"))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_a_token_of_the_issuer(issuer: Issuer, algorithm: str) -> None:
    issuer.add("one", algorithm)
    authentication = authenticator(issuer)
    for _ in range(5):
        assert await authentication.user(issuer.token("one", aud=["longhaul", "x"])) == "alice"
    assert issuer.asked == 1
    for claims in ({"aud": "x"}, {"aud": None}, {"iss": ""}, {"iss": "https://other"}, {"exp": 1}):
        with pytest.raises(UnauthorizedError):
            await authentication.user(issuer.token("one", **claims))


async def test_rotated_keys_work_and_invented_ones_cause_no_calls(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer.add("one", "ES256")
    authentication = authenticator(issuer)
    assert await authentication.user(issuer.token("one")) == "alice"
    stranger = Issuer()
    for name in ("a", "b", "c"):
        stranger.add(name, "ES256")
        with pytest.raises(UnauthorizedError):
            await authentication.user(stranger.token(name))
    stranger.server.server_close()
    assert issuer.asked == 1
    monkeypatch.setattr(auth, "REFRESH_PAUSE_S", 0)
    issuer.add("two", "ES256")
    assert await authentication.user(issuer.token("two")) == "alice"
    assert issuer.asked == 2


async def test_an_issuer_that_is_down(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REFRESH_PAUSE_S", 0)
    monkeypatch.setattr(auth, "KEY_LIFETIME_S", 0)
    issuer.add("one", "ES256")
    authentication = authenticator(issuer)
    issuer.broken = True
    with pytest.raises(UnavailableError):
        await authentication.user(issuer.token("one"))
    issuer.broken = False
    assert await authentication.user(issuer.token("one")) == "alice"
    issuer.broken = True
    assert await authentication.user(issuer.token("one")) == "alice", "known keys stay good"


async def test_a_public_key_is_no_secret(issuer: Issuer) -> None:
    issuer.add("one", "RS256")
    authentication = authenticator(issuer)
    forged = jwt.encode(CLAIMS, json.dumps(issuer.document()) * 2, "HS256", headers={"kid": "one"})
    unnamed = jwt.encode(CLAIMS, issuer.keys["one"][1], "RS256")
    for bad in (forged, unnamed, "", "a.b.c", None):
        with pytest.raises(UnauthorizedError):
            await authentication.user(bad)


async def test_off_asks_for_nothing() -> None:
    assert await Authenticator(load_settings(auth="off")).user(None) == "local"


@pytest.mark.parametrize(
    ("claims", "caller"),
    [
        ({}, Caller("alice")),
        ({"tier": "pro", "email": "a@example.com"}, Caller("alice", "a@example.com", "pro")),
        ({"roles": ["x", "admin"]}, Caller("alice", is_admin=True)),
        ({"roles": "x admin"}, Caller("alice", is_admin=True)),
        ({"roles": "administrator"}, Caller("alice")),
        ({"roles": {"admin": True}}, Caller("alice")),
        ({"roles": 7, "tier": ["PRO"], "email": "a\nb"}, Caller("alice")),
        ({"tier": "", "email": "x" * 321}, Caller("alice")),
    ],
)
async def test_what_a_token_says_of_its_user(claims: dict[str, Any], caller: Caller) -> None:
    """A claim of the wrong type counts as missing: it must make nobody an admin, and lock nobody out."""
    secret = "a secret for this test alone, of enough bytes"
    authentication = Authenticator(load_settings(auth="jwt", jwt_secret=secret))
    token = jwt.encode({"sub": "alice", "exp": 2**31, **claims}, secret, "HS256")
    assert await authentication.caller(token) == caller


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("https://example.com/roles", {"https://example.com/roles": ["boss"]}),
        ("realm.roles", {"realm": {"roles": ["boss"]}}),
        ("realm.roles", {"realm.roles": ["boss"], "realm": {"roles": []}}),
    ],
)
async def test_claims_may_lie_deeper(name: str, claims: dict[str, Any]) -> None:
    secret = "a secret for this test alone, of enough bytes"
    settings = load_settings(auth="jwt", jwt_secret=secret, jwt_roles_claim=name, admin_role="boss")
    token = jwt.encode({"sub": "alice", "exp": 2**31, **claims}, secret, "HS256")
    assert (await Authenticator(settings).caller(token)).is_admin


async def test_without_authentication_the_local_user_is_an_admin() -> None:
    assert (await Authenticator(load_settings(auth="off")).caller(None)).is_admin
