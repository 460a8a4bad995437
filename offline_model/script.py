"""The script language: everything that the offline model can be asked to do is a list of steps.

A message that is a JSON object with the key `script` is a script itself, for example
`{"script": [{"call": "calculator", "arguments": {"expression": "6*7"}}, {"speak": 20}]}`.
`english.py` translates every other message. All calls are made in the first round after the message; the answer
follows when nothing is left to be called.
"""

import json
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Literal, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Mode = Literal["wait", "slowly", "detached"]


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Say(Step):
    """Say a text in the last answer of the turn."""

    say: str


class Speak(Step):
    """Answer with a text of an exact size: words, each a token, or bytes in chunks of 64 KB."""

    speak: int = Field(ge=0, le=100_000_000)
    unit: Literal["words", "bytes"] = "words"


class Recall(Step):
    """Say the beginning of the first message of the conversation, as far as the model is given it."""

    recall: Literal["first"] = "first"


class Think(Step):
    """Send a text as reasoning before each answer."""

    think: str


class Call(Step):
    """Call a tool. Arguments that are a text are sent as they are; an optional call is left out without the tool."""

    call: str
    arguments: dict[str, Any] | str = {}
    optional: bool = False


class Rounds(Step):
    """Make so many rounds, with one call in each: of the calculator, or of `read_file` for the file to `read`."""

    rounds: int
    read: str = ""


class Delegate(Step):
    """Start a sub-session for each item, which is its first message, and report the answers.

    `wait` lets the tool wait for the answer, `slowly` polls for it, `detached` does not ask for it.
    """

    delegate: list[str]
    mode: Mode = "wait"


class Pace(Step):
    """Milliseconds until the first token and between tokens; None means the default of the server."""

    ttft: float | None = Field(None, ge=0)
    delay: float | None = Field(None, ge=0)

    def over(self, default: "Pace") -> "Pace":
        """This pace, with the default where it says nothing."""
        return default.model_copy(update=self.model_dump(exclude_none=True))


def _dated(value: str) -> str:
    return formatdate(time.time() + float(value[5:]), usegmt=True) if value.startswith("date+") else value


class Fault(Step):
    """Break the first `times` tries of a call (None: all), in one round of the turn (None: in each).

    status:CODE[:HEADER=VALUE,…]  answer with an error; `date+N` as a value is an HTTP date N seconds from now
    refuse                        close the connection before the first byte
    silence:SECONDS[:CHUNKS]      send nothing for some time after so many chunks
    cut[:CHUNKS]                  close the connection after so many chunks
    badchunk[:NUMBER]             send a chunk that is not JSON
    badargs, unknowntool          break the arguments or the names of tool calls
    empty                         answer without content
    length, content_filter        send half of an answer, with this finish reason
    """

    fault: str = Field(
        pattern=r"^(status:[45]\d\d(:[\w-]+=[^,]*(,[\w-]+=[^,]*)*)?|silence:\d+(\.\d+)?(:\d+)?|(cut|badchunk)(:\d+)?"
        r"|refuse|badargs|unknowntool|empty|length|content_filter)$"
    )
    times: int | None = None
    round: int | None = None

    @property
    def kind(self) -> str:
        return self.fault.split(":", 1)[0]

    @property
    def seconds(self) -> float:
        """How long a silence lasts."""
        return float(self.fault.split(":")[1]) if self.kind == "silence" else 0.0

    @property
    def number(self) -> int:
        """The status, or a number of chunks."""
        default, place = ("0", 2) if self.kind == "silence" else ("1", 1)
        return int((self.fault.split(":")[place:] or [default])[0])

    @property
    def headers(self) -> dict[str, str]:
        """The headers of an error status."""
        pairs = (pair.split("=", 1) for text in self.fault.split(":", 2)[2:] for pair in text.split(","))
        return {name: _dated(value) for name, value in pairs}

    def suits(self, *, has_calls: bool) -> bool:
        """Whether an answer can have this fault; two kinds break tool calls and wait for an answer that has one."""
        return has_calls or self.kind not in ("badargs", "unknowntool")


AnyStep = Say | Speak | Recall | Think | Call | Rounds | Delegate | Pace | Fault
S = TypeVar("S", bound=Step)


class _Message(Step):
    script: list[AnyStep]


@dataclass(frozen=True, slots=True)
class Script:
    """What one message asks for; `text` is quoted in answers. A follow-up was typed while the model was at work."""

    text: str
    steps: list[AnyStep]
    follow_up: bool = False

    def of(self, kind: type[S]) -> list[S]:
        """The steps of one kind, in order."""
        return [step for step in self.steps if isinstance(step, kind)]


def json_script(text: str) -> list[AnyStep] | None:
    """Read the steps of a message that is a script; None for every other. Text behind the JSON object is ignored."""
    if not text.startswith('{"script"'):
        return None
    try:
        _, end = json.JSONDecoder().raw_decode(text)
        return _Message.model_validate_json(text[:end]).script
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        problem = f"number {int(place[1]) + 1} is not a step" if len(place) > 1 else "it is not a list of steps"
    except json.JSONDecodeError as error:
        problem = f"it is not JSON: {error}"
    return [Say(say=f"I cannot read this script: {problem}.")]


def json_object(text: str) -> dict[str, Any]:
    """A JSON object, or an empty one for any other text (a tool error is plain text)."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
