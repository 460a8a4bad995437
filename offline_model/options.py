"""The settings of one offline model server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OfflineOptions:
    """Default pace of the answers; a message may set its own with `[ttft=MS delay=MS]`.

    The defaults are pleasant to watch; tests and benchmarks lower them.
    """

    ttft_ms: float = 200.0
    token_delay_ms: float = 15.0
