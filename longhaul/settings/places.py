"""Where things are: folders, and the addresses of database, Redis, Temporal and model."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, field_validator

from longhaul.settings.values import Count, parsable


class Places(BaseModel):
    """Where things are"""

    home: Path = Field(Path(".longhaul"), description="Folder of everything that the embedded stack keeps.")
    workspaces: str = Field(
        "",
        description="Folder of the sessions' files, shared by all workers and APIs. Empty: `workspaces` in the home.",
    )
    workspace_max_bytes: Count = Field(
        1_073_741_824, description="Bytes that the files of a session and all its sub-sessions may take. 0: no limit."
    )
    files_url: str = Field(
        "",
        description="Bucket of uploaded files, e.g. `s3://bucket/folder`, with the `AWS_*` variables of its provider. "
        "Empty: the folder `.files` among the workspaces.",
    )
    file_max_bytes: Annotated[int, Field(ge=1)] = Field(
        25_000_000, description="Bytes of one uploaded file; it is held in memory while it passes. More: 413."
    )
    user_files_max_bytes: Count = Field(
        1_073_741_824, description="Bytes that all files of a user may take; more: 413. 0: no limit."
    )
    api_url: str = Field(
        "",
        description="API that `longhaul send`, `chat`, `sessions` and tool workers talk to. Empty: that of the stack "
        "in the home; for tool workers `http://127.0.0.1:8700`.",
    )
    database_url: str = Field(
        "", alias="DATABASE_URL", description="SQLite or PostgreSQL 15+. Empty: SQLite in the home folder."
    )
    redis_url: str = Field("", alias="REDIS_URL", description="Redis 6.2+. Empty: the embedded stack starts one.")
    redis_cluster: bool = Field(
        default=False, description="Whether `REDIS_URL` is a node of a Redis Cluster; its other nodes are found."
    )
    temporal_address: str = Field(
        "", alias="TEMPORAL_ADDRESS", description="Temporal frontend. Empty: the embedded stack starts a dev server."
    )
    temporal_namespace: str = Field("default", alias="TEMPORAL_NAMESPACE", description="Temporal namespace.")
    payload_codec: str = Field(
        "",
        description="Encodes what Longhaul keeps in Temporal, as `module:name`: a `PayloadCodec`, or what makes one.",
    )
    temporal_ui_url: str = Field("", description="Where people open Temporal's Web UI; only shown, never called.")
    openai_base_url: str = Field(
        "", alias="OPENAI_BASE_URL", description="OpenAI-compatible endpoint. Empty, with no key: the offline model."
    )
    openai_api_key: SecretStr = Field(SecretStr(""), alias="OPENAI_API_KEY", description="Key of that endpoint.")

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite", "postgresql", "postgres://")):
            raise ValueError("a sqlite:// or postgresql:// URL")
        return parsable(value)

    @field_validator("redis_url")
    @classmethod
    def _known_redis(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("a redis://, rediss:// or unix:// URL")
        return parsable(value)

    @field_validator("api_url")
    @classmethod
    def _http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("an http:// or https:// URL")
        return parsable(value)

    def workspace_of(self, root_session_id: str) -> Path:
        """The folder of the files that a session shares with all sub-sessions below it."""
        return self.workspaces_folder / root_session_id

    @property
    def workspaces_folder(self) -> Path:
        """The folder of all workspaces."""
        return Path(self.workspaces) if self.workspaces else self.home / "workspaces"

    @property
    def jobs_folder(self) -> Path:
        """The folder of what is known about commands in the background; no session sees it."""
        return self.workspaces_folder / ".jobs"

    @property
    def journals(self) -> Path:
        """The folder of the journals of this host's workers."""
        return self.home / "journals"

    @property
    def sqlalchemy_url(self) -> str:
        """`database_url` with the driver that we use in place of the one in the URL."""
        url = self.database_url or f"sqlite:///{(self.home / 'longhaul.db').absolute()}"
        scheme, _, rest = url.partition("://")
        driver = "sqlite" if scheme.startswith("sqlite") else "postgresql+asyncpg"
        return f"{driver}://{rest}"
