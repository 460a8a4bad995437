"""Which models a process has found to be down: calls begin with their fallbacks, and at times one tries them again."""

import logging
import time
from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)


class Outages:
    """The models whose retries a call of this process has used up.

    Such a model is left out for `lifetime_s` seconds. Then the next call tries it once, while others leave it out for
    as long again; an answer ends the outage. A process knows only what its own calls have found.
    """

    def __init__(self, lifetime_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s = lifetime_s
        self._clock = clock
        #: Until when each is left out. A model whose time is over stays here until it answers.
        self._until: dict[str, float] = {}

    def to_ask(self, models: Sequence[str]) -> list[str]:
        """Those of `models` that are to be asked, in their order; all of them if all are down."""
        now = self._clock()
        left = [model for model in models if self._until.get(model, now) <= now]
        if not left:
            return [*models]
        if left[0] in self._until:
            log.info("%s was down and is tried again", left[0])
            self._until[left[0]] = now + self._lifetime_s
        return left

    def is_down(self, model: str) -> bool:
        """Whether a model was down when it was asked last: a failure of it need not be waited out again."""
        return model in self._until

    def failed(self, model: str, fallback: str) -> None:
        """Leave a model out from now on."""
        if not self._lifetime_s:
            return
        log.warning("%s counts as down for %g s; calls begin with %s", model, self._lifetime_s, fallback)
        self._until[model] = self._clock() + self._lifetime_s

    def answered(self, model: str) -> None:
        """Ask a model like any other again."""
        if self._until.pop(model, None) is not None:
            log.warning("%s answers again", model)
