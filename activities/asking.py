"""Asks a model within its window: a request that the endpoint refuses as too long is cut harder and sent again."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from longhaul.errors import ContextTooLongError, StreamBrokenError
from longhaul.llm.client import ModelClient
from longhaul.llm.request import Request, room
from longhaul.settings import Settings

log = logging.getLogger(__name__)
#: Of a refused request, at most this share is sent again.
CUT_TO = 2 / 3


@dataclass
class Asking:
    """The requests of one model call; `request` is the newest."""

    model_client: ModelClient
    settings: Settings
    request: Request

    async def chunks(self, build: Callable[[float], Request], call_key: str) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of the answer. `build` makes a request of at most so many estimated tokens.

        Raises:
            ContextTooLongError: the request cannot be cut any harder.
        """
        while True:
            request = self.request
            begun = False
            try:
                async with aclosing(self.model_client.stream(request.body, call_key=call_key)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        yield chunk
                return
            except ContextTooLongError as refusal:
                if begun:
                    raise StreamBrokenError("The model endpoint refused the request inside its answer.") from None
                cut = build(self._tokens_after(refusal))
                if cut.estimated_tokens >= request.estimated_tokens:
                    raise ContextTooLongError from None
                self.request = cut

    def _tokens_after(self, refusal: ContextTooLongError) -> float:
        """What the next request may take: a third less, or still less if the endpoint says how much too long it is."""
        tokens = self.request.estimated_tokens
        log.warning(
            "%s refused a request of %d estimated tokens (its window: %s tokens, taken for %d); it is cut and sent "
            "again",
            self.request.body["model"],
            tokens,
            refusal.window or "not told",
            self.request.model.window,
        )
        told = None
        if refusal.window:
            told = room(refusal.window, self.settings.context_share, (refusal.counted or 0) / tokens)
        return min(filter(None, (tokens * CUT_TO, told)))
