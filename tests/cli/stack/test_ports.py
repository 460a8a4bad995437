"""Taken ports are stepped over, and ports are the same at the next start."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import CommandError
from cli.stack.environment import choose_ports, embedded_components, endpoints_of
from cli.stack.ports import PREFERRED, PortClaims, is_free
from cli.stack.state import StackState
from longhaul.settings import load_settings


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.fixture
def claims(tmp_path: Path) -> Iterator[PortClaims]:
    found = PortClaims(tmp_path / "claims")
    yield found
    found.release()


def test_taken_port_is_stepped_over(listener: int, claims: PortClaims) -> None:
    assert not is_free(listener)
    port = claims.take(listener)
    assert port > listener
    assert is_free(port)


def test_port_claimed_by_another_copy_is_stepped_over(tmp_path: Path, claims: PortClaims, listener: int) -> None:
    """The other has chosen its port but does not listen yet: only the claim tells."""
    other = PortClaims(tmp_path / "claims")
    port = other.take(listener)
    assert claims.take(port) != port
    other.release()
    again = PortClaims(tmp_path / "claims")
    assert again.take(port) == port
    again.release()


def test_stepping_avoids_what_others_prefer(listener: int, claims: PortClaims) -> None:
    assert claims.take(listener, avoid=frozenset({listener, listener + 1})) > listener + 1


def test_no_port_left_says_so(claims: PortClaims, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.stack.ports.is_free", lambda _port, _host: False)
    with pytest.raises(CommandError, match="no free port from 8700"):
        claims.take(8700)


def test_ports_of_the_last_run_come_first(bare: Path, claims: PortClaims) -> None:
    last = StackState(ports={"redis": 16391})
    ports = choose_ports(load_settings(), ["redis"], last, claims)
    assert ports["redis"] == 16391
    assert set(ports) == {"api", "redis"}


def test_a_step_is_named(
    bare: Path, claims: PortClaims, listener: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("LONGHAUL_API_PORT", str(listener))
    ports = choose_ports(load_settings(), [], StackState(ports={"api": 1234}), claims)
    assert f"port {listener} is taken: api uses {ports['api']}" in caplog.text


def test_endpoints_with_every_component_elsewhere(
    bare: Path, claims: PortClaims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPORAL_ADDRESS", "temporal.example:7233")
    monkeypatch.setenv("REDIS_URL", "redis://:secret@redis.example/0")
    monkeypatch.setenv("DATABASE_URL", "postgresql://me:secret@db.example/longhaul")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    settings = load_settings()
    embedded = embedded_components(settings)
    assert embedded == []
    ports = choose_ports(settings, embedded, None, claims)
    assert list(ports) == ["api"]
    endpoints = endpoints_of(settings, embedded, ports)
    assert endpoints.temporal_address == "temporal.example:7233"
    assert "secret" not in endpoints.model_dump_json()


def test_endpoints_of_the_embedded_stack(bare: Path, claims: PortClaims) -> None:
    settings = load_settings()
    embedded = embedded_components(settings)
    assert embedded == ["temporal", "redis", "database", "model"]
    ports = choose_ports(settings, embedded, None, claims)
    assert set(ports) == set(PREFERRED)
    endpoints = endpoints_of(settings, embedded, ports)
    assert endpoints.database_url == f"sqlite:///{bare / 'longhaul.db'}"
    assert endpoints.model_base_url == f"http://127.0.0.1:{ports['model']}/v1"
