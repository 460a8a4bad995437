"""The API as a process, and what it says when something is wrong with it."""

import re
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from api.app import create_app
from longhaul.settings import load_settings

pytestmark = pytest.mark.integration  # it starts processes

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("module", "variable", "value"),
    [
        ("api", "LONGHAUL_API_PORT", "none"),
        ("api", "LONGHAUL_AUTH", "jwt"),
        ("api", "DATABASE_URL", "mysql://x"),
        ("api", "LONGHAUL_PAYLOAD_CODEC", "nothing.there:codec"),
        ("worker", "LONGHAUL_PAYLOAD_CODEC", "nothing.there:codec"),
    ],
)
def test_a_wrong_setting_is_one_line(module: str, variable: str, value: str, tmp_path: Path) -> None:
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", variable: value}
    ended = subprocess.run(
        [sys.executable, "-m", module], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert variable in ended.stderr


async def test_a_defect_is_a_500_that_tells_nothing() -> None:
    app = create_app(load_settings(auth="off"))

    @app.get("/defect")
    async def defect() -> None:
        raise ZeroDivisionError("a secret of ours")

    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/defect")
    assert answer.status_code == answer.json()["status"] == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text


async def test_the_documentation_needs_no_other_machine() -> None:
    app = create_app(load_settings(auth="off"))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        page = (await client.get("/docs")).text
        needed = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(needed) >= 2
        for path in needed:
            assert path.startswith("/"), f"{path} is somewhere else"
            assert (await client.get(path)).status_code == 200
