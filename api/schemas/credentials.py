"""The JSON of users' credentials. Nothing here ever holds a secret, except what a person sends."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.dependencies import ID
from api.schemas.base import Answer, Page
from longhaul.db.models import CredentialKind, CredentialStatus

TOKEN_MIN, TOKEN_MAX = 8, 16_000


class NewToken(BaseModel):
    """A token that tools are to sign in with."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"token": "a token of the service"}]})

    token: str = Field(min_length=TOKEN_MIN, max_length=TOKEN_MAX, pattern=ID, description="It is never shown again.")


class Credential(Answer):
    """What is known about a credential, without the secret. `rejected`: it does not work, and is to be given anew."""

    name: str = Field(examples=["github"])
    kind: CredentialKind = Field(description="`token`: typed by a person. `oauth`: given by a provider.")
    status: CredentialStatus
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = Field(description="Of the access token; it is refreshed before, if that is possible.")


class Provider(Answer):
    """A provider that can be connected to."""

    name: str = Field(description="Of the credential.", examples=["github"])
    title: str = Field(examples=["GitHub"])
    url: str = Field(description="The address to open.", examples=["/v1/credentials/github/connect"])


class CredentialList(Page):
    """The credentials of a user, all on one page, and the providers that can be connected to."""

    data: list[Credential]
    providers: list[Provider]


class Connecting(Answer):
    """Where to allow the access: to be opened by the browser that has asked for it, whose cookie shows that."""

    authorization_url: str
    expires_at: datetime
