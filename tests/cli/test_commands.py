"""The command line without servers: errors in one line, status, summary, doctor, logs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from cli import CommandError, doctor
from cli.app import app
from cli.stack import state as state_module
from cli.stack.environment import joined_environment
from cli.stack.state import Endpoints, ProcessState, StackState, claim_home, write_state
from cli.status import as_json, summary
from longhaul.settings import Settings, SettingsError, load_settings, variable_of
from scripts import settings_doc

pytestmark = pytest.mark.integration  # it starts processes

ROOT = Path(__file__).parents[2]
runner = CliRunner()
KEYS = {"api_url", "temporal_address", "temporal_ui_url", "redis_url", "database_url", "model_base_url"}


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for field in Settings.model_fields:
        monkeypatch.delenv(variable_of(field), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LONGHAUL_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@contextmanager
def running(home: Path, **changes: object) -> Iterator[None]:
    """A home as a running supervisor leaves it."""
    lock = claim_home(home)
    assert lock is not None
    try:
        endpoints = Endpoints(
            api_url="http://127.0.0.1:8702", temporal_address="127.0.0.1:7234", redis_url="redis://r:1/0"
        )
        write_state(home, StackState(status="ready", endpoints=endpoints).model_copy(update=changes))
        yield
    finally:
        os.close(lock)


def test_settings_page_is_up_to_date() -> None:
    assert settings_doc.PATH.read_text(encoding="utf-8") == settings_doc.text(), "run `make settings-doc`"


def test_wrong_setting_is_one_line_and_exit_code_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGHAUL_MAX_ROUNDS", "0")
    ended = subprocess.run([sys.executable, "-m", "cli", "status"], capture_output=True, text=True, env=_env())
    assert ended.returncode == 2
    assert ended.stderr.startswith("LONGHAUL_MAX_ROUNDS='0' is not allowed")
    assert ended.stderr.count("\n") == 1


def _env() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def test_every_command_has_help() -> None:
    for command in app.registered_commands:
        assert command.name is not None
        assert runner.invoke(app, [command.name, "--help"]).exit_code == 0
        assert command.callback is not None
        assert command.callback.__doc__


def test_status_without_a_stack() -> None:
    answer = runner.invoke(app, ["status", "--json"])
    assert answer.exit_code == 1
    assert orjson.loads(answer.stdout) == {**dict.fromkeys(KEYS), "processes": [], "versions": {}}
    assert "not running" in runner.invoke(app, ["status"]).stdout


def test_status_of_a_stack(home: Path) -> None:
    api = ProcessState(name="api", pid=12, healthy=True, restarts=2)
    redis = ProcessState(name="redis", pid=0, healthy=False, restarts=0)
    with running(home, processes=[api, redis], versions={"redis": "7"}):
        answer = runner.invoke(app, ["status", "--json"])
        assert "restarts" in runner.invoke(app, ["status"]).stdout
    assert answer.exit_code == 0
    found = orjson.loads(answer.stdout)
    assert set(found) == KEYS | {"processes", "versions"}
    assert found["api_url"] == "http://127.0.0.1:8702"
    assert found["database_url"] is None
    assert found["processes"] == [
        {"name": "api", "pid": 12, "healthy": True, "restarts": 2},
        {"name": "redis", "pid": 0, "healthy": False, "restarts": 0},
    ]


def test_as_json_has_the_same_keys_always() -> None:
    assert set(as_json(None)) == set(as_json(StackState()))


@pytest.mark.parametrize("arguments", [["up"], ["up", "--detach"]])
def test_second_up_says_already_running(home: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "_LOCK_TRIES", 1)
    with running(home):
        answer = runner.invoke(app, arguments)
    assert answer.exit_code == 0
    assert "already running" in answer.stdout
    assert "http://127.0.0.1:8702/docs" in answer.stdout


def test_down_without_a_stack() -> None:
    answer = runner.invoke(app, ["down"])
    assert answer.exit_code == 0
    assert "not running" in answer.stdout


def test_summary_has_a_curl_to_paste() -> None:
    state = StackState(endpoints=Endpoints(api_url="http://127.0.0.1:8700", temporal_ui_url="http://127.0.0.1:8233"))
    text = summary(state, load_settings())
    assert "http://127.0.0.1:8700/docs" in text
    assert "http://127.0.0.1:8233" in text
    assert "curl -N http://127.0.0.1:8700/v1/sessions/$SESSION/stream" in text
    assert "authorization" not in text
    with_token = summary(state, load_settings(auth="jwt", jwt_secret="s" * 32))
    assert "Bearer $LONGHAUL_TOKEN" in with_token


def test_summary_shows_no_passwords() -> None:
    urls = Endpoints(redis_url="rediss://:hush@cache/0", database_url="postgresql://ann:hush@db/x?password=hush")
    text = summary(StackState(endpoints=urls), load_settings())
    assert "postgresql://ann:***@db/x?password=***" in text
    assert "hush" not in text


def test_worker_joins_a_running_stack(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TEMPORAL_ADDRESS" not in joined_environment(load_settings())
    with running(home, embedded=["temporal", "redis"]):
        assert joined_environment(load_settings())["TEMPORAL_ADDRESS"] == "127.0.0.1:7234"
        monkeypatch.setenv("REDIS_URL", "redis://mine")
        assert joined_environment(load_settings())["REDIS_URL"] == "redis://mine"


def test_doctor_on_this_machine() -> None:
    names = {one.name: one for one in doctor.findings()}
    assert set(names) == {"python", "checkout", "settings", "home", "temporal", "redis", "ports", "model"}
    assert all(names[name].ok for name in ("python", "settings", "home", "redis", "ports", "model"))


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LONGHAUL_HOME", str(tmp_path / "file" / "home"))
    monkeypatch.setenv("LONGHAUL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    answer = runner.invoke(app, ["doctor"])
    assert answer.exit_code == 1
    for line in ("home      ", "temporal  ", "model     "):
        assert f"missing {line}" in answer.stdout
    assert "set LONGHAUL_HOME" in answer.stdout
    assert "check OPENAI_BASE_URL" in answer.stdout


def test_doctor_with_wrong_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "http://x")
    answer = runner.invoke(app, ["doctor"])
    assert answer.exit_code == 1
    assert "REDIS_URL='http://x' is not allowed" in answer.stdout


def test_logs(home: Path) -> None:
    (home / "logs").mkdir(parents=True)
    (home / "logs" / "api.log").write_text("one\ntwo\n", encoding="utf-8")
    (home / "logs" / "worker.log").write_text("three\n", encoding="utf-8")
    assert runner.invoke(app, ["logs", "api", "-n", "1"]).stdout == "two\n"
    assert runner.invoke(app, ["logs"]).stdout == "api    | one\napi    | two\nworker | three\n"
    assert "no log 'nix'" in str(runner.invoke(app, ["logs", "nix"]).exception)


def test_logs_follow_over_a_rotation(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cli.logs import Follower

    log = home / "x.log"
    home.mkdir()
    follower = Follower(log, "")
    follower.show()
    log.write_text("first\n", encoding="utf-8")
    follower.show()
    follower.show()
    log.rename(home / "x.log.1")
    log.write_text("second\n", encoding="utf-8")
    follower.show()
    follower.show()
    assert capsys.readouterr().out == "first\nsecond\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"DATABASE_URL": "postgresql://me:s3cret@127.0.0.1:9/x", "REDIS_URL": "redis://:s3cret@127.0.0.1:9/0"},
        {"DATABASE_URL": "postgresql://127.0.0.1:9/x?user=me&password=s3cret"},
        {"DATABASE_URL": "mysql://me:s3cret@127.0.0.1:9/x"},
        {"DATABASE_URL": "postgresql://me:s3cret/s3cret@127.0.0.1:9/x"},
        {"REDIS_URL": "redis://:s3cret/s3cret@127.0.0.1:9/0"},
        {"OPENAI_BASE_URL": "http://me:s3cret@127.0.0.1:9/v1?api_key=s3cret", "OPENAI_API_KEY": "s3cret"},
    ],
)
def test_commands_print_no_secret(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for command in ("migrate", "doctor", "status"):
        answer = runner.invoke(app, [command])
        shown = f"{answer.output}{answer.exception or ''}"  # `main` shows the text of an exception
        assert shown
        assert "s3cret" not in shown
        assert answer.exception is None or isinstance(answer.exception, (CommandError, SettingsError, SystemExit))


SLOW_SUPERVISOR = """
import atexit, signal, sys, time
from pathlib import Path
from cli.stack.state import claim_home
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
claim_home(Path(sys.argv[1]))
print("locked", flush=True)
signal.sigwait([signal.SIGTERM])
atexit.register(time.sleep, 2)  # as an interpreter that takes its time to end
"""


def test_down_returns_when_the_supervisor_has_ended(home: Path) -> None:
    command = [sys.executable, "-c", SLOW_SUPERVISOR, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == b"locked\n"
        result = runner.invoke(app, ["down"])
        assert result.exit_code == 0, result.output
        assert supervisor.wait(timeout=1) == 0  # it raises while the end is still to come
