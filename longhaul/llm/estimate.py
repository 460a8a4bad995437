"""What a model call costs where its bill is not known: before the call, and after one that broke off."""

from typing import NamedTuple

from longhaul.contracts import Usage
from longhaul.llm.completion import Completion, priced
from longhaul.llm.request import Request, answer_limit
from longhaul.llm.tokens import tokens_of_text

#: A prompt takes up to this many times what is estimated, as long as the endpoint has counted none of its session.
UNCALIBRATED = 1.6


class Estimate(NamedTuple):
    """Estimates for one request. `token_scale`: how many tokens the endpoint counts for an estimated one; or None."""

    request: Request
    token_scale: float | None = None

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
        return self._priced(used).cost_microdollars

    def completed(self, received: Completion) -> Completion:
        """What was received, with its cost: the endpoint's own, else by price; an estimate if it sent no usage."""
        if received.is_estimated:
            usage = self.usage(received)
        else:
            usage = priced(received.model or self.request.body["model"], received.usage)
        return received.model_copy(update={"usage": usage, "estimated_tokens": self.request.estimated_tokens})

    def _scaled(self, tokens: float) -> int:
        return round(tokens * (self.token_scale or 1.0))

    def _priced(self, usage: Usage) -> Usage:
        return priced(self.request.body["model"], usage)
