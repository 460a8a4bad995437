"""Settings of users' credentials: the keys that encrypt them, and the providers that people connect to."""

import re
from functools import cached_property
from typing import Annotated, Literal
from urllib.parse import urlsplit

import orjson
from cryptography.fernet import Fernet
from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, field_validator

from longhaul.settings.api import LOOPBACK_HOSTS

#: How users, tools and providers call a credential.
CREDENTIAL_NAME = r"^[a-z0-9][a-z0-9_.-]{0,63}$"
_NEW_KEY = "make one by `longhaul credentials new-key`"


class OAuthProvider(BaseModel):
    """One OAuth 2 provider, as its documentation describes it. `title`: how people know it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Annotated[str, Field(min_length=1, max_length=100)]
    client_id: Annotated[str, Field(min_length=1)]
    client_secret: SecretStr = SecretStr("")
    authorize_url: str
    token_url: str
    revoke_url: str = ""
    scopes: tuple[str, ...] = ()
    client_auth: Literal["post", "basic"] = "post"
    authorize_parameters: dict[str, str] = {}

    @field_validator("authorize_url", "token_url", "revoke_url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        url = urlsplit(value)
        if value and not (url.scheme == "https" or (url.scheme == "http" and url.hostname in LOOPBACK_HOSTS)):
            raise ValueError("must begin with https://; http:// is for loopback only")
        return value


_PROVIDERS = TypeAdapter(dict[Annotated[str, Field(pattern=CREDENTIAL_NAME)], OAuthProvider])


class Credentials(BaseModel):
    """Credentials of users"""

    credential_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys that encrypt users' credentials, comma-separated: the first one encrypts, all decrypt. "
        "`longhaul credentials new-key` makes one. Empty: no credentials can be stored.",
    )
    oauth_providers: SecretStr = Field(
        SecretStr(""),
        description='OAuth 2 providers that people connect to, as JSON by the names of their credentials: `{"github": '
        '{"title": "GitHub", "client_id": "…", "client_secret": "…", "authorize_url": "https://…", "token_url": '
        '"https://…", "scopes": ["repo"]}}`. More: docs/credentials.md.',
    )

    @field_validator("credential_keys")
    @classmethod
    def _usable_keys(cls, value: SecretStr) -> SecretStr:
        for number, key in enumerate(_keys(value), 1):
            try:
                Fernet(key)
            except ValueError:
                raise ValueError(f"number {number} is no key; {_NEW_KEY}") from None
        return value

    @field_validator("oauth_providers")
    @classmethod
    def _usable_providers(cls, value: SecretStr) -> SecretStr:
        try:
            _providers(value)
        except orjson.JSONDecodeError:
            raise ValueError("should be a JSON object") from None
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from None
        return value

    @property
    def keys_of_credentials(self) -> list[str]:
        """The keys, the newest first."""
        return _keys(self.credential_keys)

    @cached_property
    def providers(self) -> dict[str, OAuthProvider]:
        """The providers, by the names of their credentials."""
        return _providers(self.oauth_providers)


def _keys(value: SecretStr) -> list[str]:
    return [key for key in re.split(r"[,\s]+", value.get_secret_value()) if key]


def _providers(value: SecretStr) -> dict[str, OAuthProvider]:
    return _PROVIDERS.validate_python(orjson.loads(value.get_secret_value() or "{}"))
