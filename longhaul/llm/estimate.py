"""What a model call costs where its bill is not known: before the call, and after one that broke off."""

from typing import NamedTuple

from longhaul.contracts import Usage
from longhaul.llm.completion import Completion
from longhaul.llm.models import known_model
from longhaul.llm.request import Request, answer_limit
from longhaul.llm.tokens import tokens_of_text

#: A prompt takes up to this many times what is estimated, as long as the endpoint has counted none of its session.
UNCALIBRATED = 1.6


class Estimate(NamedTuple):
    """Estimates for one request.

    `token_scale`: how many tokens the endpoint counts for an estimated one; or None. `cache_ttl`: how long Anthropic
    models are asked to keep a prompt.
    """

    request: Request
    token_scale: float | None
    cache_ttl: str

    def usage(self, received: Completion) -> Usage:
        """What a request has used whose answer came as far as `received`."""
        written = "".join((received.text, *(call.name + call.arguments for call in received.tool_calls)))
        reasoning = self._scaled(tokens_of_text(received.reasoning))
        return self._priced(
            Usage(
                calls=1,
                prompt_tokens=self._scaled(self.request.estimated_tokens),
                completion_tokens=self._scaled(tokens_of_text(written)) + reasoning,
                reasoning_tokens=reasoning,
            )
        )

    def most(self) -> int | None:
        """Microdollars if the answer is as long as its limit allows; None: the model's price is unknown."""
        margin = UNCALIBRATED if self.token_scale is None else 1.0
        prompt_tokens = round(self._scaled(self.request.estimated_tokens) * margin)
        used = Usage(prompt_tokens=prompt_tokens, completion_tokens=answer_limit(self.request.body))
        # Writing a prompt to the provider's cache may cost more than reading it.
        written = used.model_copy(update={"cache_creation_tokens": prompt_tokens})
        costs = (self._priced(one).cost_microdollars for one in (used, written))
        return max((cost for cost in costs if cost is not None), default=None)

    def completed(self, received: Completion) -> Completion:
        """What was received, with its cost: the endpoint's own, else by price; an estimate if it sent no usage."""
        usage = self.usage(received) if received.is_estimated else self._priced(received.usage, received.model)
        return received.model_copy(update={"usage": usage, "estimated_tokens": self.request.estimated_tokens})

    def _scaled(self, tokens: float) -> int:
        return round(tokens * (self.token_scale or 1.0))

    def _priced(self, usage: Usage, answered_by: str = "") -> Usage:
        """`usage` with a cost: the endpoint's own, else by price; unknown stays None.

        `answered_by`: the model that answered, where the one that was asked is only a name for several.
        """
        if usage.cost_microdollars is not None:
            return usage
        priced = self.request.model if self.request.model.prices is not None else known_model(answered_by)
        cost = priced.microdollars(usage, self.cache_ttl) if priced is not None else None
        return usage.model_copy(update={"cost_microdollars": cost})
