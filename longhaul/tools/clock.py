"""What time it is."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field

from longhaul.tools.registry import ToolContext, ToolError, tool


class Zone(BaseModel):
    timezone: str = Field("UTC", max_length=100, description="IANA name, e.g. Europe/Berlin")


@tool(Zone, "The current date and time.", quick=True)
async def current_time(arguments: Zone, context: ToolContext) -> str:  # noqa: ARG001
    try:
        zone = ZoneInfo(arguments.timezone)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ToolError(f"There is no time zone {arguments.timezone!r}.") from error
    return datetime.now(UTC).astimezone(zone).isoformat(timespec="seconds")


CURRENT_TIME = current_time
