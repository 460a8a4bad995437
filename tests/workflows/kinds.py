"""Every kind of turn, and how to make one: what is recorded, and must replay for ever."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from temporalio.api.enums.v1 import EventType

from testkit.client import RecordingClient
from testkit.wait import until

COMPLETED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED
FAILED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED
CANCELLED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED
CONTINUED = EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW

#: Makes a turn in a session, which is new; returns when the turn has ended.
Make = Callable[[RecordingClient, str], Awaitable[None]]


@dataclass(frozen=True)
class Kind:
    """One kind of turn.

    Attributes:
        ends: the last event of its (first) run.
        settings: of the API that starts it: what workflow code decides by is frozen into a turn at its start.
        child: also record the sub-session.
        runs: how many runs in a row to record.
    """

    make: Make
    ends: "EventType.ValueType"
    settings: tuple[tuple[str, str], ...] = ()
    child: bool = False
    runs: int = 1


def says(text: str) -> Make:
    """A turn with this one message."""

    async def make(api: RecordingClient, session: str) -> None:
        await api.wait_for_turn(session, await api.start(session, text))

    return make


def joined(text: str, follow_up: str) -> Make:
    """A turn that a second message joins."""

    async def make(api: RecordingClient, session: str) -> None:
        turn = await api.start(session, text)
        await _works(api, session, turn)
        assert await api.start(session, follow_up) == turn
        await api.wait_for_turn(session, turn)

    return make


def stopped(text: str, *follow_ups: str) -> Make:
    """A turn that is stopped in its middle."""

    async def make(api: RecordingClient, session: str) -> None:
        turn = await api.start(session, text)
        await _works(api, session, turn)
        for follow_up in follow_ups:
            await api.start(session, follow_up)
        await api.cancel(session)
        assert (await api.wait_for_turn(session, turn))["status"] == "cancelled"

    return make


async def _works(api: RecordingClient, session: str, turn: str) -> None:
    """Wait until the turn is in its first round (and its tools run, if it is for tools that it takes long)."""

    async def busy() -> bool:
        found = await api.progress(session, turn)
        return bool(found["round"] and (found["tools_running"] or not found["tools_done"]))

    await until(busy, what="the turn works")


async def _polled(api: RecordingClient, session: str) -> None:
    """A sub-session that is started without waiting, and stopped with its turn."""
    turn = await api.start(session, "delegate slowly: (wait 60 s)")

    async def delegated() -> bool:
        return bool((await api.progress(session, turn))["sub_sessions"])

    await until(delegated, what="the sub-session is started")
    await api.cancel(session)
    await api.wait_for_turn(session, turn)


async def _asked(api: RecordingClient, session: str) -> tuple[str, str]:
    """A turn whose question waits, beside a tool that runs; the turn, and the question's id."""
    turn = await api.start(session, ASKING)

    async def waits() -> str:
        asked = (await api.call("GET", f"/approvals?session_id={session}")).body["data"]
        return str(asked[0]["id"]) if asked else ""

    return turn, await until(waits, what="the question waits")


async def _answered(api: RecordingClient, session: str) -> None:
    turn, question = await _asked(api, session)
    assert (await api.call("POST", f"/approvals/{question}", json={"answer": "green"})).status == 200
    await api.wait_for_turn(session, turn)


async def _message_instead(api: RecordingClient, session: str) -> None:
    turn, _ = await _asked(api, session)
    assert await api.start(session, "and 4*5") == turn
    await api.wait_for_turn(session, turn)


async def _stopped_while_asking(api: RecordingClient, session: str) -> None:
    turn, _ = await _asked(api, session)
    await api.cancel(session)
    await api.wait_for_turn(session, turn)


QUESTION = '{"call": "ask_user", "arguments": {"question": "Which colour?"}}'
ASKING = f'{{"script": [{QUESTION}, {{"call": "calculator", "arguments": {{"expression": "2*3"}}}}]}}'
ROUNDS = (("LONGHAUL_MAX_ROUNDS", "3"),)
WINDOW = (("LONGHAUL_MODEL_STANDARD", "offline-window-6000"),)
ANSWER_TIME = (("LONGHAUL_ANSWER_TIMEOUT", "1"),)
SHORT = (("LONGHAUL_CONTINUE_AS_NEW_EVENTS", "30"),)
KINDS = {
    "plain": Kind(says("hello"), COMPLETED),
    "tools": Kind(says("2*3"), COMPLETED),
    "quick_tool": Kind(says("2*3"), COMPLETED),
    "quick_tools_beside_others": Kind(says("2*3 and wait 100 ms and list files and what time is it"), COMPLETED),
    "parallel_tools": Kind(says("2*3 and 4*5 and wait 100 ms, and what time is it"), COMPLETED),
    "tool_errors": Kind(says("read file nothing.txt"), COMPLETED),
    "retried": Kind(says("hello [fault=status:503 times=1]"), COMPLETED),
    "follow_up_during_tools": Kind(joined("wait 2 s", "and 2*3"), COMPLETED),
    "follow_up_during_answer": Kind(joined("speak 40 [delay=50]", "and 2*3"), COMPLETED),
    "stopped_in_answer": Kind(stopped("speak 1000 [delay=50]"), CANCELLED),
    "stopped_in_tools": Kind(stopped("wait 60 s and 2*3"), CANCELLED),
    "stopped_between": Kind(stopped("rounds 50 [ttft=800]"), CANCELLED),
    "stopped_with_follow_up": Kind(stopped("wait 60 s", "and this"), CANCELLED),
    "failed": Kind(says("hello [fault=status:400]"), FAILED),
    "cut_off": Kind(says("hello [fault=length]"), COMPLETED),
    "round_limit": Kind(says("rounds 10"), COMPLETED, ROUNDS),
    "compacting": Kind(says("rounds 4 " + "and more words " * 2_000), COMPLETED, WINDOW),
    "continued": Kind(says("rounds 6"), CONTINUED, SHORT, runs=3),
    "question": Kind(_answered, COMPLETED),
    "question_message": Kind(_message_instead, COMPLETED),
    "question_stopped": Kind(_stopped_while_asking, CANCELLED),
    "question_time_out": Kind(says(ASKING), COMPLETED, ANSWER_TIME),
    "delegating": Kind(says("delegate: (6*7); (hello)"), COMPLETED, child=True),
    "delegating_stopped": Kind(_polled, CANCELLED, child=True),
}

__all__ = ["KINDS", "Kind"]
