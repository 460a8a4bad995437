"""Bring a database to the newest schema; the same migrations run on SQLite and PostgreSQL."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url


def config(url: str) -> Config:
    alembic_config = Config()
    alembic_config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    alembic_config.attributes["url"] = url
    return alembic_config


def upgrade(url: str) -> None:
    """Migrate the database at an async SQLAlchemy URL. Blocking: call it from no event loop."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    command.upgrade(config(url), "head")
