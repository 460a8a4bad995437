"""Settings: read from the environment, refused in one readable line, written down in docs/settings.md."""

import os
from pathlib import Path

import pytest

from longhaul.settings import LIMITS_OF_USERS, Settings, SettingsError, load_settings, variable_of
from longhaul.settings.values import without_secrets
from scripts import settings_doc

ISSUER = {"jwt_audience": "longhaul", "jwt_issuer": "https://issuer"}


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of the caller's own settings."""
    for name in [*os.environ]:
        if name.startswith(("LONGHAUL_", "OPENAI_", "TEMPORAL_")) or name in ("DATABASE_URL", "REDIS_URL"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("LONGHAUL_API_PORT", "0", "greater than or equal to 1"),
        ("LONGHAUL_API_PORT", "65536", "less than or equal to 65535"),
        ("LONGHAUL_API_PORT", "many", "valid integer"),
        ("LONGHAUL_AUTH", "basic", "'off' or 'jwt'"),
        ("LONGHAUL_LOG_LEVEL", "loud", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("LONGHAUL_PROMPT_CACHE_TTL", "2h", "'5m' or '1h'"),
        ("LONGHAUL_TOOL_TRIES", "0", "greater than or equal to 1"),
        ("LONGHAUL_MAX_PENDING_MESSAGES", "-1", "greater than or equal to 0"),
        ("LONGHAUL_HEARTBEAT_TIMEOUT", "0", "greater than 0"),
        ("LONGHAUL_CONTEXT_SHARE", "1.5", "less than or equal to 1"),
        ("LONGHAUL_MODEL_USAGE_COST", "perhaps", "valid boolean"),
        ("DATABASE_URL", "mysql://x/y", "a sqlite:// or postgresql:// URL"),
        ("REDIS_URL", "localhost:6379", "a redis://, rediss:// or unix:// URL"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as raised:
        load_settings()
    text = str(raised.value)
    assert text.startswith(f"{variable}='{value}' is not allowed: ")
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("variable", "field", "value"),
    [
        ("DATABASE_URL", "database_url", "postgresql://h/d"),
        ("REDIS_URL", "redis_url", "rediss://h"),
        ("OPENAI_BASE_URL", "openai_base_url", "http://h/v1"),
        ("TEMPORAL_ADDRESS", "temporal_address", "h:7233"),
        ("TEMPORAL_NAMESPACE", "temporal_namespace", "n"),
        ("LONGHAUL_TASK_QUEUE", "task_queue", "q"),
    ],
)
def test_variables(monkeypatch: pytest.MonkeyPatch, variable: str, field: str, value: str) -> None:
    assert variable_of(field) == variable
    monkeypatch.setenv(variable, value)
    assert getattr(load_settings(), field) == value
    assert getattr(load_settings(**{field: f"{value}x"}), field) == f"{value}x", "arguments win"


def test_every_variable_has_one_name() -> None:
    names = [variable_of(field) for field in Settings.model_fields]
    assert len(set(names)) == len(names)
    standard = {
        "DATABASE_URL",
        "REDIS_URL",
        "OPENAI_BASE_URL",
        "OPENAI_API_KEY",
        "TEMPORAL_ADDRESS",
        "TEMPORAL_NAMESPACE",
    }
    assert {name for name in names if not name.startswith("LONGHAUL_")} == standard


def test_the_environment_wins_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("LONGHAUL_API_PORT=9001\nLONGHAUL_MAX_DEPTH=7\nDATABASE_URL=sqlite:///x.db\nOTHER=1\n")
    monkeypatch.setenv("LONGHAUL_API_PORT", "9002")
    found = load_settings()
    assert (found.api_port, found.max_depth, found.database_url) == (9002, 7, "sqlite:///x.db")


def test_secrets_are_not_shown() -> None:
    found = load_settings(openai_api_key="sk-secret", jwt_secret="hush" * 8)
    assert "sk-secret" not in repr(found)
    assert "hush" not in repr(found)
    assert found.openai_api_key.get_secret_value() == "sk-secret"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://ann:hush@db/x"),
        ("DATABASE_URL", "mysql://ann:a/hush@b@db/x?y=1"),
        ("DATABASE_URL", "mysql://db/x?user=ann&password=hush&sslmode=require"),
        ("REDIS_URL", "http://:hush@cache"),
        ("REDIS_URL", "rediss:/cache?PASSWORD=hush"),
    ],
)
def test_errors_show_no_secrets(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=f"^{variable}=") as raised:
        load_settings()
    assert "hush" not in str(raised.value)
    assert "***" in str(raised.value)


def test_limits_of_users_need_users() -> None:
    """Without authentication all that a product's back end asks for is one user's."""
    users = load_settings(auth="jwt", jwt_secret="x" * 32)
    assert {getattr(users, name) for name in LIMITS_OF_USERS} == {20, 50, 60, 1_000_000, 5_000_000}
    nobody = load_settings(auth="off", max_streams=7)
    assert nobody.max_streams == 7
    assert {getattr(nobody, name) for name in LIMITS_OF_USERS - {"max_streams"}} == {0}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_without_auth_loopback_is_fine(host: str) -> None:
    assert load_settings(auth="off", api_host=host).api_host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.com", "127.0.0.1.example.com", ""])  # noqa: S104
def test_without_auth_nothing_else_is(host: str) -> None:
    with pytest.raises(SettingsError, match="LONGHAUL_AUTH=off listens on loopback only; set LONGHAUL_AUTH=jwt"):
        load_settings(auth="off", api_host=host)
    assert load_settings(auth="jwt", jwt_secret="x" * 32, api_host=host).api_host == host


def test_jwt_needs_a_secret_or_keys() -> None:
    with pytest.raises(SettingsError, match="LONGHAUL_AUTH=jwt needs LONGHAUL_JWT_SECRET or LONGHAUL_JWT_JWKS_URL"):
        load_settings(auth="jwt")
    assert load_settings(auth="jwt", jwt_jwks_url="https://issuer/keys", **ISSUER).auth == "jwt"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"jwt_secret": "x" * 31}, "LONGHAUL_JWT_SECRET must have at least 32 bytes"),
        ({"jwt_jwks_url": "https://issuer/keys"}, "needs LONGHAUL_JWT_AUDIENCE and LONGHAUL_JWT_ISSUER"),
        ({"jwt_jwks_url": "https://issuer/keys", "jwt_audience": "longhaul"}, "LONGHAUL_JWT_ISSUER"),
        ({"jwt_jwks_url": "http://issuer/keys", **ISSUER}, "must begin with https://"),
        ({"jwt_jwks_url": "http://127.0.0.1.example.com/keys", **ISSUER}, "must begin with https://"),
        ({"jwt_jwks_url": "file:///keys", **ISSUER}, "must begin with https://"),
    ],
)
def test_weak_tokens_are_refused_at_the_start(settings: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(auth="jwt", **settings)


def test_keys_over_http_are_for_loopback() -> None:
    assert load_settings(auth="jwt", jwt_jwks_url="http://127.0.0.1:9/keys", **ISSUER).auth == "jwt"


def test_without_auth_no_site_may_read() -> None:
    with pytest.raises(SettingsError, match=r"LONGHAUL_CORS_ORIGINS=\*"):
        load_settings(cors_origins=["https://a", "*"])
    assert load_settings(auth="jwt", jwt_secret="x" * 32, cors_origins=["*"]).cors_origins == ["*"]


@pytest.mark.parametrize(
    ("written", "used"),
    [
        ("postgresql://u:p@h/d", "postgresql+asyncpg://u:p@h/d"),
        ("postgres://u@h/d", "postgresql+asyncpg://u@h/d"),
        ("postgresql+psycopg://h/d?x=1", "postgresql+asyncpg://h/d?x=1"),
        ("sqlite:///a.db", "sqlite:///a.db"),
        ("sqlite+pysqlite:////a/b.db", "sqlite:////a/b.db"),
    ],
)
def test_the_driver_is_ours(written: str, used: str) -> None:
    assert load_settings(database_url=written).sqlalchemy_url == used


def test_without_a_database_it_is_sqlite_in_the_home(tmp_path: Path) -> None:
    assert load_settings(home=tmp_path).sqlalchemy_url == f"sqlite:///{tmp_path}/longhaul.db"
    assert load_settings().sqlalchemy_url == f"sqlite:///{Path.cwd()}/.longhaul/longhaul.db"


@pytest.mark.parametrize(
    ("written", "origins"),
    [("", []), ("https://a", ["https://a"]), (" https://a , ,https://b", ["https://a", "https://b"])],
)
def test_lists_are_written_with_commas(monkeypatch: pytest.MonkeyPatch, written: str, origins: list[str]) -> None:
    monkeypatch.setenv("LONGHAUL_CORS_ORIGINS", written)
    assert load_settings().cors_origins == origins


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("redis://h/0", "redis://h/0"),
        ("redis://:s3cret@h:6379/0", "redis://:***@h:6379/0"),
        ("postgresql://u:s3cret@h:5/d?x=1", "postgresql://u:***@h:5/d?x=1"),
        ("postgresql://u:s3cret/s3cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:s3cret@s3cret@h/d", "postgresql://u:***@h/d"),
        (
            "postgresql://h/d?user=u&password=s3cret&sslmode=require",
            "postgresql://h/d?user=u&password=***&sslmode=require",
        ),
        ("https://h/v1?api_key=s3cret", "https://h/v1?api_key=***"),
        ("https://h/v1?Token=s3cret#top", "https://h/v1?Token=***#top"),
    ],
)
def test_secrets_in_urls_are_masked(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://me:s3cret@db/longhaul"),
        ("DATABASE_URL", "postgresql://me:s3cret/s3cret@db/longhaul"),
        ("DATABASE_URL", "postgresql://me:[s3cret@db/longhaul"),
        ("DATABASE_URL", "mysql://db/longhaul?password=s3cret"),
        ("REDIS_URL", "http://:s3cret@redis/0"),
        ("REDIS_URL", "redis://:s3cret/s3cret@redis/0"),
    ],
)
def test_a_settings_error_shows_no_secret(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert variable in str(error.value)
    assert "s3cret" not in str(error.value)


def test_a_secret_with_a_wrong_value_is_not_shown() -> None:
    with pytest.raises(SettingsError, match=r"OPENAI_API_KEY='\*\*\*' is not allowed"):
        load_settings(openai_api_key=["s3cret"])


def test_settings_are_read_from_secret_files_last(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LONGHAUL_SECRETS_DIR", str(tmp_path / "secrets"))
    assert load_settings().redis_url == ""
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "REDIS_URL").write_text("redis://:s@file/0\n", encoding="utf-8")
    (tmp_path / "secrets" / "LONGHAUL_JWT_SECRET").write_text("from a file", encoding="utf-8")
    settings = load_settings()
    assert settings.redis_url == "redis://:s@file/0"
    assert settings.jwt_secret.get_secret_value() == "from a file"
    monkeypatch.setenv("REDIS_URL", "redis://environment/0")
    assert load_settings().redis_url == "redis://environment/0"


def test_the_documentation_is_up_to_date() -> None:
    assert settings_doc.PATH.read_text(encoding="utf-8") == settings_doc.text(), "run make settings-doc"


def test_every_setting_is_documented() -> None:
    text = settings_doc.text()
    for field, info in Settings.model_fields.items():
        assert f"| `{variable_of(field)}` |" in text
        assert info.description, field
