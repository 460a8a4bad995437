"""PostgreSQL: a cluster in a temporary folder, a new database for each product."""

import asyncio
import atexit
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import asyncpg

from longhaul.db.migrate import upgrade
from testkit.servers import HOST, Server, postgres_folder
from testkit.wait import LIMIT_S

_TEMPLATE = "migrated"


class PostgresServer(Server):
    """It refuses to run as root, so there it runs as the user `postgres`."""

    name = "postgres"
    stop_signal = signal.SIGINT  # a fast shutdown: it does not wait for clients to leave

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.data = Path(tempfile.mkdtemp(prefix="longhaul-pg-")) / "data"  # where the user `postgres` has access
        atexit.register(self.remove)
        self._template = asyncio.Lock()
        self._migrated = False

    def _as_server(self, command: list[str]) -> list[str]:
        if os.geteuid() != 0:
            return command
        user = ["--reuid=postgres", "--regid=postgres", "--init-groups"]
        return ["setpriv", *user, *command]

    async def argv(self) -> list[str]:
        programs = postgres_folder()
        if os.geteuid() == 0:
            shutil.chown(self.data.parent, "postgres", "postgres")
        initdb = [str(programs / "initdb"), "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        command = self._as_server([*initdb, "--no-sync", "--locale=C"])
        made = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, cwd="/")
        if made.returncode != 0:
            raise RuntimeError(f"initdb: {made.stdout}{made.stderr}")
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "max_connections": "500",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._as_server([str(programs / "postgres"), "-D", str(self.data), *options])

    def url(self, database: str) -> str:
        return f"postgresql+asyncpg://postgres@{HOST}:{self.port}/{database}"

    async def healthy(self) -> str | None:
        try:
            connection = await self._admin()
        except (OSError, TimeoutError, asyncpg.PostgresError) as error:
            return f"{type(error).__name__}: {error}"
        await connection.close()
        return None

    async def new_database(self) -> str:
        """A migrated, empty database; its URL."""
        async with self._template:
            if not self._migrated:
                await self._sql(f"CREATE DATABASE {_TEMPLATE}")
                await asyncio.to_thread(upgrade, self.url(_TEMPLATE))
                self._migrated = True
        name = f"longhaul_{secrets.token_hex(6)}"
        await self._sql(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        return self.url(name)

    async def _admin(self) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(host=HOST, port=self.port, user="postgres", database="postgres", timeout=LIMIT_S)

    async def _sql(self, statement: str) -> None:
        connection = await self._admin()
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def remove(self) -> None:
        """Delete its data."""
        shutil.rmtree(self.data.parent, ignore_errors=True)
