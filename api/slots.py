"""How many streams and waiting polls of one user this process serves at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.problems import ProblemError

RETRY_AFTER_S = 5


class UserSlots:
    """At most `limit` of something for each user; 0: no limit. `what` names it, in the plural."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = limit
        self._what = what
        self._taken: Counter[str] = Counter()

    @contextmanager
    def slot(self, user_id: str) -> "Iterator[Slot]":
        """A slot that may be taken inside the block. Its end gives it back."""
        slot = Slot(self, user_id)
        try:
            yield slot
        finally:
            if slot.taken:
                self._taken[user_id] -= 1
                if not self._taken[user_id]:
                    del self._taken[user_id]

    def count(self, user_id: str) -> None:
        """Count one more.

        Raises:
            ProblemError: 429, this user has as many as the limit allows.
        """
        if self._limit and self._taken[user_id] >= self._limit:
            raise ProblemError(
                429,
                f"too-many-{self._what.replace(' ', '-')}",
                f"{self._limit} {self._what} may be open at once; close one first.",
                headers={"Retry-After": str(RETRY_AFTER_S)},
            )
        self._taken[user_id] += 1


class Slot:
    """The slot of one request."""

    def __init__(self, slots: UserSlots, user_id: str) -> None:
        self._slots = slots
        self._user_id = user_id
        self.taken = False

    def take(self) -> None:
        """Take it.

        Raises:
            ProblemError: 429, this user has none left.
        """
        if not self.taken:
            self._slots.count(self._user_id)
            self.taken = True
