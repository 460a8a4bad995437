"""Settings of the API: its address, who may use it, and what it allows each user at once."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, model_validator

from longhaul.settings.values import Count, Seconds, Words

LOOPBACK_HOSTS = ("127.0.0.1", "::1", "localhost")
# RFC 7518: a key for HS256 is at least as long as its hash.
JWT_SECRET_MIN_BYTES = 32


class Api(BaseModel):
    """API"""

    api_host: str = Field("127.0.0.1", description="Address the API listens on; with auth off, loopback only.")
    api_port: Annotated[int, Field(ge=1, le=65535)] = Field(
        8700, description="Port of the API; a taken one is stepped over."
    )
    public_url: str = Field(
        "", description="Address of the API for people, e.g. `https://chat.example.com`. Empty: its host and port."
    )
    auth: Literal["off", "jwt"] = Field("off", description="`off`: one user `local`. `jwt`: bearer tokens.")
    jwt_secret: SecretStr = Field(SecretStr(""), description="HS256 secret of the tokens, at least 32 bytes.")
    jwt_jwks_url: str = Field(
        "", description="JWKS URL of the tokens' issuer (RS256/ES256), instead of a secret. https, or http on loopback."
    )
    jwt_audience: str = Field("", description="Required audience of a token. Empty: not checked, with a secret only.")
    jwt_issuer: str = Field("", description="Required issuer of a token. Empty: not checked, with a secret only.")
    jwt_tier_claim: str = Field("tier", description="Claim that holds the user's tier; `a.b` reaches into an object.")
    jwt_email_claim: str = Field("email", description="Claim that holds the user's e-mail address, for admins.")
    jwt_roles_claim: str = Field("roles", description="Claim that holds the user's roles: a list, or words in a text.")
    admin_role: str = Field("admin", min_length=1, description="The role that may use `/v1/admin/...`.")
    cors_origins: Words = Field(
        [], description="Origins allowed by CORS, comma-separated; `*` only with LONGHAUL_AUTH=jwt. Empty: CORS off."
    )
    mcp_server: bool = Field(
        default=False, description="Be an MCP server at `/mcp`, for the users of the API ([mcp.md](mcp.md))."
    )
    max_streams: Count = Field(
        50, description="Open streams per user and API process; more: 429. Without auth 0, unless set."
    )
    max_long_polls: Count = Field(
        50, description="Polls that wait, per user and API process; more: 429. Without auth 0, unless set."
    )
    stream_keep_alive: Seconds = Field(15.0, description="Seconds between keep-alive comments on a silent stream.")
    temporal_rpc_timeout: Seconds = Field(5.0, description="Seconds the API waits for Temporal before it answers 503.")

    @model_validator(mode="after")
    def _auth_is_safe(self) -> "Api":
        if self.auth == "off":
            if self.api_host not in LOOPBACK_HOSTS:
                raise ValueError(
                    "LONGHAUL_AUTH=off listens on loopback only; set LONGHAUL_AUTH=jwt or LONGHAUL_API_HOST=127.0.0.1"
                )
            if "*" in self.cors_origins:
                raise ValueError(
                    "LONGHAUL_AUTH=off allows no LONGHAUL_CORS_ORIGINS=*; name the origins, or set LONGHAUL_AUTH=jwt"
                )
            return self
        secret = self.jwt_secret.get_secret_value()
        if not (secret or self.jwt_jwks_url):
            raise ValueError("LONGHAUL_AUTH=jwt needs LONGHAUL_JWT_SECRET or LONGHAUL_JWT_JWKS_URL")
        if self.jwt_jwks_url:
            url = urlsplit(self.jwt_jwks_url)
            if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK_HOSTS):
                raise ValueError("LONGHAUL_JWT_JWKS_URL must begin with https://; http:// is for loopback only")
            if not (self.jwt_audience and self.jwt_issuer):
                raise ValueError("LONGHAUL_JWT_JWKS_URL needs LONGHAUL_JWT_AUDIENCE and LONGHAUL_JWT_ISSUER")
        elif len(secret.encode()) < JWT_SECRET_MIN_BYTES:
            raise ValueError(f"LONGHAUL_JWT_SECRET must have at least {JWT_SECRET_MIN_BYTES} bytes")
        return self

    @property
    def url_for_users(self) -> str:
        """What links to the API begin with."""
        host = f"[{self.api_host}]" if ":" in self.api_host else self.api_host
        return self.public_url.rstrip("/") or f"http://{host}:{self.api_port}"
