"""Which call gets which fault, and how a fault changes the answer. `script.Fault` describes the kinds."""

from dataclasses import dataclass, field, replace

from pydantic import ConfigDict

from offline_model.answer import Answer
from offline_model.conversation import ToolCall
from offline_model.script import Fault
from offline_model.stats import BoundedCounter


class InstalledFault(Fault):
    """The body of `POST /faults`: a fault for the next `times` requests whose newest user text contains `match`."""

    model_config = ConfigDict(frozen=False)

    match: str = ""
    times: int = 1


@dataclass(slots=True)
class FaultBook:
    """Decides which call gets which fault: installed faults come first, then those that the message asks for."""

    installed: list[InstalledFault] = field(default_factory=list)
    tries: BoundedCounter = field(default_factory=BoundedCounter)

    def clear(self) -> None:
        """Forget all faults, and how often each call was tried."""
        self.installed.clear()
        self.tries.clear()

    def take(self, text: str, key: str, answer: Answer) -> Fault | None:
        """The fault of the call with this key and newest user text, if any; taking it uses it up."""
        has_calls = bool(answer.calls)
        for installed in self.installed:
            if installed.match in text and installed.suits(has_calls=has_calls):
                installed.times -= 1
                if installed.times <= 0:
                    self.installed.remove(installed)
                return installed
        due = [fault for fault in answer.faults if fault.suits(has_calls=has_calls)]
        if not due:
            return None
        spent = self.tries.add(key) - 1
        for fault in due:
            if fault.times is None or spent < fault.times:
                return fault
            spent -= fault.times
        return None


def broken(answer: Answer, kind: str) -> Answer:
    """The answer with a fault in its content; all other kinds of faults are in how it is sent."""
    match kind:
        case "badargs":
            return replace(answer, calls=[ToolCall(c.name, c.arguments[:-1] or "{") for c in answer.calls])
        case "unknowntool":
            return replace(answer, calls=[ToolCall("no_such_tool", c.arguments) for c in answer.calls])
        case "empty":
            return replace(answer, reasoning=[], pieces=[], calls=[])
        case "length" | "content_filter":
            kept = answer.pieces[: max(1, len(answer.pieces) // 2)] or ["This ", "answer ", "breaks ", "off"]
            return replace(answer, pieces=kept, calls=[], finish=kind)
    return answer
