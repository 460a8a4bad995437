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
    """The requests of one model call, and the tokens that we estimate: what the next may take, what the last took.

    `shortened`: the last request shows less than the whole conversation.
    """

    model_client: ModelClient
    settings: Settings
    max_tokens: float
    estimated_tokens: int = 0
    shortened: bool = False

    async def chunks(
        self, build: Callable[[float], Request], call_key: str = ""
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of the answer. `build` makes a request of at most so many estimated tokens.

        Raises:
            ContextTooLongError: the request cannot be cut any harder.
        """
        while True:
            request = build(self.max_tokens)
            if 0 < self.estimated_tokens <= request.estimated_tokens:
                raise ContextTooLongError
            self.estimated_tokens, self.shortened = request.estimated_tokens, request.shortened
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
                self._cut_harder(refusal, request)

    def _cut_harder(self, refusal: ContextTooLongError, request: Request) -> None:
        """Let the next request take less: by a third at least, more if the endpoint says by how much it is too long."""
        log.warning(
            "%s refused a request of %d estimated tokens (its window: %s tokens, LONGHAUL_CONTEXT_WINDOW: %d); it is "
            "cut and sent again",
            request.body["model"],
            request.estimated_tokens,
            refusal.window or "not told",
            self.settings.context_window,
        )
        told = None
        if refusal.window:
            of_model = self.settings.model_copy(update={"context_window": refusal.window})
            told = room(of_model, (refusal.counted or 0) / self.estimated_tokens)
        self.max_tokens = min(filter(None, (self.estimated_tokens * CUT_TO, told)))
