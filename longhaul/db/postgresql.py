"""Transactions on PostgreSQL, by asyncpg."""

import logging
import os
import re
import ssl
import tempfile
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import URL, CursorResult, Executable, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from longhaul.db.connection import Connection, Parameters
from longhaul.settings import SettingsError

log = logging.getLogger(__name__)
LOCK_NAME = select(func.pg_advisory_xact_lock(func.hashtextextended(bindparam("name"), 0)))
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30
# Parameters of a URL that SQLAlchemy reads; all others are libpq's.
SQLALCHEMY_PARAMETERS = {"host", "port", "ssl", "prepared_statement_cache_size"}
# Parameters of libpq that asyncpg does not have. It would send them to the server, which refuses unknown ones.
UNSUPPORTED_PARAMETERS = {
    "channel_binding",
    "connect_timeout",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "replication",
    "require_auth",
    "requirepeer",
    "sslcertmode",
    "sslcompression",
    "sslkeylogfile",
    "sslsni",
    "tcp_user_timeout",
}
# How OpenSSL names the files of a folder of certificate revocation lists.
REVOCATION_LIST = re.compile(r"[0-9a-f]{8}\.r\d+")


def create_engine(url: URL, **options: Any) -> AsyncEngine:
    """An engine for a URL with any parameters of libpq, as providers of PostgreSQL hand them out.

    Raises:
        SettingsError: the folder `sslcrldir` has no certificate revocation lists.
    """
    parameters = {name: value for name, value in url.query.items() if name not in SQLALCHEMY_PARAMETERS}
    if unsupported := sorted(UNSUPPORTED_PARAMETERS & parameters.keys()):
        log.warning("these parameters of DATABASE_URL have no effect: %s", ", ".join(unsupported))
    supported = {name: value for name, value in parameters.items() if name not in UNSUPPORTED_PARAMETERS}
    if supported.get("sslrootcert") == "system":
        supported["sslrootcert"] = ssl.get_default_verify_paths().cafile or ""
        supported.setdefault("sslmode", "verify-full")
    revoked = None
    if folder := supported.pop("sslcrldir", None):
        revoked = _revocation_lists(Path(str(folder)), supported.get("sslcrl"))
        supported["sslcrl"] = str(revoked)
    connect_args = options.pop("connect_args", {})
    if supported:
        # asyncpg takes them from a DSN. SQLAlchemy would hand them over as arguments, which asyncpg refuses.
        connect_args = {**connect_args, "dsn": f"postgresql://?{urlencode(supported, doseq=True)}"}
    engine = create_async_engine(url.difference_update_query(parameters), connect_args=connect_args, **options)
    if revoked is not None:
        weakref.finalize(engine.sync_engine, revoked.unlink)
    return engine


def _revocation_lists(folder: Path, more: object) -> Path:
    """A new file with all certificate revocation lists of a folder, because asyncpg takes no folder."""
    found = sorted(path for path in folder.glob("*") if REVOCATION_LIST.fullmatch(path.name))
    if not found:
        raise SettingsError(
            f"DATABASE_URL: sslcrldir={str(folder)!r} has no certificate revocation lists. Their files are named by "
            "their issuer's hash, such as 1f3c8a90.r0: run `openssl rehash` in that folder."
        )
    handle, name = tempfile.mkstemp(prefix="longhaul-crl-", suffix=".pem")
    with os.fdopen(handle, "wb") as merged:
        for path in (*found, *([Path(str(more))] if more else [])):
            merged.write(path.read_bytes() + b"\n")
    return Path(name)


class PostgresConnection(Connection):
    """Runs statements by asyncpg."""

    def __init__(self, connection: AsyncConnection) -> None:
        super().__init__()
        self._connection = connection

    async def _run(self, statement: Executable, parameters: Parameters) -> CursorResult[Any]:
        return await self._connection.execute(statement, parameters)

    async def lock_name(self, name: str) -> None:
        await self._connection.execute(LOCK_NAME, {"name": name})


class Postgres:
    """Transactions on a database of a server."""

    def __init__(self, url: URL, pool_size: int) -> None:
        self._engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            pool_pre_ping=True,
            hide_parameters=True,  # what people say belongs neither in logs nor in Temporal's failures
            pool_timeout=CONNECT_TIMEOUT_S,
            connect_args={"timeout": CONNECT_TIMEOUT_S, "command_timeout": STATEMENT_TIMEOUT_S},
        )

    @asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        async with self._engine.connect() as connection:  # closing it ends the transaction
            yield PostgresConnection(connection)

    @asynccontextmanager
    async def write(self) -> AsyncIterator[Connection]:
        async with self._engine.begin() as connection:
            yield PostgresConnection(connection)

    async def close(self) -> None:
        await self._engine.dispose()
