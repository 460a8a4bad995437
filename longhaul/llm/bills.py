"""What an endpoint says afterwards of a call: OpenRouter's generation record."""

from typing import Any
from urllib.parse import urlsplit

from longhaul.contracts import Usage
from longhaul.llm.completion import count, microdollars
from longhaul.settings import Settings

BILLING_HOST = "openrouter.ai"


def knows_bills(settings: Settings) -> bool:
    """Whether the endpoint can be asked afterwards what a call has cost."""
    if settings.model_late_bills is not None:
        return settings.model_late_bills
    host = urlsplit(settings.openai_base_url).hostname or ""
    return host == BILLING_HOST or host.endswith(f".{BILLING_HOST}")


def usage_of_record(record: Any) -> Usage | None:
    """The usage that a generation record tells; None if it tells no cost (yet)."""
    data = record.get("data") if isinstance(record, dict) else None
    if not isinstance(data, dict) or (cost := microdollars(data.get("total_cost"))) is None:
        return None
    return Usage(
        calls=1,
        prompt_tokens=count(data.get("native_tokens_prompt")) or count(data.get("tokens_prompt")),
        completion_tokens=count(data.get("native_tokens_completion")) or count(data.get("tokens_completion")),
        reasoning_tokens=count(data.get("native_tokens_reasoning")),
        cached_tokens=count(data.get("native_tokens_cached")),
        cost_microdollars=cost,
    )
