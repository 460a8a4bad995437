"""The file of servers: what it may say, and that it gives no secret of ours away."""

import json
from pathlib import Path
from typing import Any

import pytest

from longhaul.mcp.config import ServerConfig, load_servers
from longhaul.settings import SettingsError, load_settings
from longhaul.tools.load import load_tools


def load(folder: Path, text: str) -> dict[str, ServerConfig]:
    file = folder / "mcp.json"
    file.write_text(text)
    return load_servers(load_settings(mcp_config=str(file)))


def of(folder: Path, **entries: Any) -> dict[str, ServerConfig]:
    return load(folder, json.dumps({"mcpServers": entries}))


def test_no_file() -> None:
    assert load_servers(load_settings()) == {}


def test_servers_in_the_form_that_clients_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "quiet")
    monkeypatch.delenv("SHOP_PLACE", raising=False)
    shop = {"type": "http", "url": "https://x.example/mcp", "headers": {"Authorization": "Bearer ${SHOP_TOKEN}"}}
    files = {"command": "npx", "args": ["-y", "files", "${SHOP_PLACE:-/srv}"], "env": {"KEY": "${SHOP_TOKEN}"}}
    servers = of(tmp_path, shop=shop, files=files)
    assert list(servers) == ["shop", "files"]
    assert servers["shop"].headers["Authorization"].get_secret_value() == "Bearer quiet"
    assert "quiet" not in repr(servers["shop"])
    assert servers["files"].args == ("-y", "files", "/srv")
    assert servers["files"].environment()["KEY"] == "quiet"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "it is not JSON"),
        ("[]", 'no object "mcpServers"'),
        ('{"mcpServers": {"a__b": {"command": "x"}}}', "server 'a__b': a name has"),
        ('{"mcpServers": {"a": {}}}', "either a `command` or a `url`"),
        ('{"mcpServers": {"a": {"command": "x", "url": "http://y"}}}', "either a `command` or a `url`"),
        ('{"mcpServers": {"a": {"url": "ftp://y"}}}', "begins with http"),
        ('{"mcpServers": {"a": {"url": "http://y", "env": {"A": "b"}}}}', "belong to a `command`"),
        ('{"mcpServers": {"a": {"command": "x", "headers": {"A": "b"}}}}', "belong to a `url`"),
        ('{"mcpServers": {"a": {"command": "x", "tool": ["y"]}}}', "server 'a': tool: "),
        ('{"mcpServers": {"a": {"command": "${NO_SUCH_VARIABLE}"}}}', "NO_SUCH_VARIABLE, which is not set"),
    ],
)
def test_what_is_wrong_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"LONGHAUL_MCP_CONFIG=") as wrong:
        load(tmp_path, text)
    assert words in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load_servers(load_settings(mcp_config=str(tmp_path / "none.json")))


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "LONGHAUL_JWT_SECRET", "DATABASE_URL", "PGPASSWORD", "TEMPORAL_API_KEY"]
)
def test_no_server_is_told_a_secret_of_ours(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "sqlite:///quiet")
    for entry in ({"command": "x", "env": {"A": f"${{{name}}}"}}, {"url": f"http://x/?key=${{{name}}}"}):
        with pytest.raises(SettingsError, match=f"is not told {name}") as wrong:
            of(tmp_path, a=entry)
        assert "quiet" not in str(wrong.value)


def test_tools_of_servers_can_be_turned_off() -> None:
    """Their names are not known before the server answers."""
    assert load_tools(load_settings(mcp_config="mcp.json", disabled_tools="shop__buy,write_file"))
    with pytest.raises(SettingsError, match="shop__buy"):
        load_tools(load_settings(disabled_tools="shop__buy"))
