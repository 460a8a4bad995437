"""What time it is."""

from datetime import UTC, datetime, timedelta

import pytest

from longhaul.tools import ToolContext, ToolError
from longhaul.tools.quick import Zone, current_time


@pytest.mark.parametrize(("zone", "hours"), [("UTC", 0), ("Asia/Tokyo", 9), ("Etc/GMT+3", -3)])
async def test_now(context: ToolContext, zone: str, hours: int) -> None:
    assert current_time.run is not None
    found = datetime.fromisoformat(await current_time.run(Zone(timezone=zone), context))
    assert found.utcoffset() == timedelta(hours=hours)
    assert abs(found - datetime.now(UTC)) < timedelta(seconds=10)


@pytest.mark.parametrize("zone", ["", "Mars", "America", "../UTC", "/etc/passwd", "a\x00b", ".", "x" * 100])
async def test_no_zones(context: ToolContext, zone: str) -> None:
    assert current_time.run is not None
    with pytest.raises(ToolError, match="There is no time zone"):
        await current_time.run(Zone(timezone=zone), context)
