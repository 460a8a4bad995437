"""Ciphertexts: who can open them, with which keys, and what errors say."""

import pytest

from longhaul.credentials.redaction import Redaction
from longhaul.credentials.vault import Secret, Vault, new_key
from longhaul.errors import SetupError
from longhaul.settings import SettingsError, load_settings

SECRET = Secret(value='s3cret/"value" ü', refresh_token="s3cret refresh")
PROVIDER = '{"acme": {"title": "A", "client_id": "c", "client_secret": "s3cret", "authorize_url": "https://a/", %s}}'


def test_sealed_and_opened() -> None:
    vault = Vault([new_key()])
    sealed = vault.seal("ann", "github", SECRET)
    assert "s3cret" not in sealed
    assert vault.open("ann", "github", sealed) == SECRET
    assert vault.seal("ann", "github", SECRET) != sealed, "the same secret does not look the same"


@pytest.mark.parametrize(("user", "name"), [("bob", "github"), ("ann", "gitlab")])
def test_a_copied_row_opens_for_nobody_else(user: str, name: str) -> None:
    """Whoever can write the database cannot give themselves the credential of another user."""
    vault = Vault([new_key()])
    with pytest.raises(SetupError, match="another user"):
        vault.open(user, name, vault.seal("ann", "github", SECRET))


def test_keys_rotate() -> None:
    old, new = new_key(), new_key()
    sealed = Vault([old]).seal("ann", "github", SECRET)
    both = Vault([new, old])
    assert both.open("ann", "github", sealed) == SECRET
    anew = both.sealed_anew(sealed)
    assert anew is not None
    assert Vault([new]).open("ann", "github", anew) == SECRET
    with pytest.raises(SetupError, match="LONGHAUL_CREDENTIAL_KEYS"):
        Vault([new]).open("ann", "github", sealed)
    assert Vault([new]).sealed_anew(sealed) is None


def test_without_keys_nothing_is_stored() -> None:
    with pytest.raises(SetupError, match="longhaul credentials new-key"):
        Vault([]).seal("ann", "github", SECRET)


def test_wrong_settings_are_named_without_their_secrets() -> None:
    for settings, said in (
        ({"credential_keys": f"{new_key()}, s3cret"}, "number 2 is no key"),
        ({"oauth_providers": "{s3cret"}, "should be a JSON object"),
        ({"oauth_providers": PROVIDER % '"token_url": "http://a/?s3cret"'}, "acme.token_url: must begin with https"),
        ({"oauth_providers": PROVIDER % '"x": "s3cret"'}, "acme.token_url: Field required"),
    ):
        with pytest.raises(SettingsError, match=said) as raised:
            load_settings(**settings)
        assert "s3cret" not in str(raised.value)
    found = load_settings(oauth_providers=PROVIDER % '"token_url": "http://127.0.0.1/"', credential_keys=new_key())
    assert "s3cret" not in repr(found) + str(found.providers)
    assert found.providers["acme"].client_secret.get_secret_value() == "s3cret"


@pytest.mark.parametrize(
    "text",
    [
        'plain s3cret/"value" ü',
        'json {"a": "s3cret/\\"value\\" ü"}',
        "url ?x=s3cret%2F%22value%22%20%C3%BC",
        "base64 czNjcmV0LyJ2YWx1ZSIgw7w=",
    ],
)
def test_secrets_are_taken_out_of_texts(text: str) -> None:
    redact = Redaction()
    assert redact(text) == text
    redact.add(SECRET.value)
    kind, _, rest = redact(text).partition(" ")
    assert "s3cret" not in rest
    assert "czNj" not in rest
    assert "***" in rest
    assert kind == text.partition(" ")[0]
