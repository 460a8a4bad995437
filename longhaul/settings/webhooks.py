"""Settings of events and webhooks."""

from typing import Annotated

from pydantic import BaseModel, Field, IPvAnyNetwork
from pydantic_settings import NoDecode

from longhaul.settings.values import SPLIT_AT_COMMAS, Count, Seconds


class Webhooks(BaseModel):
    """Events and webhooks"""

    max_webhooks: Count = Field(10, description="Webhooks that a user may have; more: 409. 0: no limit.")
    webhook_allowed_networks: Annotated[list[IPvAnyNetwork], NoDecode, SPLIT_AT_COMMAS] = Field(
        [],
        description="Networks that webhooks may reach although they are not public, by http:// too, for development: "
        "`127.0.0.0/8`.",
    )
    webhook_timeout: Seconds = Field(15.0, description="Seconds that a receiver has to answer.")
    webhook_retry_seconds: Seconds = Field(
        86_400.0, description="Age of an event, in seconds, from which on it is not tried again."
    )
    events_keep_days: Annotated[int, Field(ge=2)] = Field(
        30, description="Days that events, and attempts to deliver them, are kept."
    )
