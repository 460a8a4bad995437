"""An attempt at a model call: what earlier attempts left in the checkpoint, and what this one asks and shows."""

import time
from dataclasses import dataclass

from pydantic import BaseModel

from longhaul.contracts import CallModel
from longhaul.db.ledger import PaidCall
from longhaul.llm.completion import Completion
from longhaul.streams.publisher import StreamPublisher
from longhaul.streams.step_writer import StepWriter

PARTIAL_MAX_CHARS = 200_000


class CallState(BaseModel):
    """Checkpoint of a model call: the finished answer until it is stored; until then, what the failed attempts left.

    `model`: the one that the newest attempt asked, or that the next one is to ask; empty: the call's first.
    `exhausted`: models whose retries are used up. `failures`: of `model`.
    `asking_since`, `failing_since`, `waiting_since`: when a model was first asked, when the first attempt failed, and
    when one first found the budget reserved by other calls, in seconds since the epoch. `partial`: the newest text that
    was shown and cut off. `received_by`: the attempt that has received the answer.
    """

    model: str = ""
    exhausted: list[str] = []
    failures: int = 0
    asking_since: float | None = None
    failing_since: float | None = None
    waits: int = 0
    waiting_since: float | None = None
    partial: Completion | None = None
    completion: Completion | None = None
    received_by: int = 1

    def after_failure(self, received: Completion, asked_at: float) -> "CallState":
        """The state after one more failed attempt, which had received so much since it began to ask."""
        kept = 0 < len(received.text) + len(received.reasoning) <= PARTIAL_MAX_CHARS
        return CallState(
            model=self.model,
            exhausted=self.exhausted,
            failures=self.failures + 1,
            asking_since=self.asking_since or asked_at,
            failing_since=self.failing_since or time.time(),
            partial=received.model_copy(update={"tool_calls": []}) if kept else self.partial,
        )

    def with_fallback(self, model: str, fallback: str) -> "CallState":
        """The state after the last retry of `model`: the next attempt asks the `fallback`."""
        exhausted = [*self.exhausted, model]
        return CallState(model=fallback, exhausted=exhausted, asking_since=self.asking_since, partial=self.partial)


@dataclass(frozen=True)
class Attempt:
    """One attempt at a model call: the earlier attempts' checkpoint, and where this one shows its answer.

    `models`: the one that it asks, and behind it those that are left if this one fails. `paid` is its name in the
    ledger. `reserves`: a budget of money limits it.
    """

    call: CallModel
    models: list[str]
    state: CallState
    publisher: StreamPublisher
    step: StepWriter
    paid: PaidCall
    reserves: bool

    @property
    def model(self) -> str:
        return self.models[0]

    @property
    def fallback(self) -> str:
        """The model that is asked when the retries of this one are used up; empty: none is left."""
        return self.models[1] if len(self.models) > 1 else ""

    @property
    def answered_by_fallback(self) -> str:
        return self.model if self.model != self.call.model else ""
