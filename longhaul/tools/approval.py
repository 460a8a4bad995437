"""Which tool calls a person has to allow: those of tools that say so, and those that `LONGHAUL_APPROVE` names.

An entry is a tool's name, or a name and a pattern of its arguments: `write_file`, `shop__*`, `bash_exec(rm *)`,
`write_file(path=reports/*)`. A pattern without an argument's name is compared with each argument. `*` stands for any
text, `?` for one character, and letters of both cases are the same. Conditions may follow, all of which must hold:
`* if price >= 5000 and user != ops-*`, with the price of a call in microdollars. Users are compared letter by letter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import orjson

from longhaul.settings.tools import APPROVE_CONDITION, APPROVE_ENTRY
from longhaul.tools.registry import Tool


@dataclass(frozen=True)
class Condition:
    """Calls that cost `price` microdollars or more, or turns of users whose id matches `user` (or does not)."""

    price: int = 0
    user: str = "*"
    others: bool = False

    def holds(self, tool: Tool, user_id: str) -> bool:
        return tool.price_microdollars >= self.price and fnmatchcase(user_id, self.user) is not self.others


@dataclass(frozen=True)
class Rule:
    """Calls of tools whose name matches `tool`, if an argument matches `pattern`: any, or the one of that `name`; and
    if all `conditions` hold."""

    tool: str
    name: str | None = None
    pattern: str | None = None
    conditions: tuple[Condition, ...] = ()

    def applies(self, tool: Tool, arguments: dict[str, Any], user_id: str) -> bool:
        if not _matches(tool.name, self.tool) or not all(one.holds(tool, user_id) for one in self.conditions):
            return False
        if self.pattern is None:
            return True
        values = [arguments.get(self.name)] if self.name is not None else arguments.values()
        return any(_matches(text, self.pattern) for value in values if value is not None for text in _texts(value))


class ApprovalRules:
    """Says which calls need a person's consent."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._rules = [_rule(entry) for entry in entries]

    def need(self, tool: Tool, arguments: str, user_id: str) -> bool:
        """Whether a call needs consent; `arguments` as the model wrote them. Wrong ones need none: nothing is run.

        `user_id`: whose turn it is.
        """
        if not (self._rules or tool.needs_approval) or not tool.is_valid(arguments):
            return False
        if tool.needs_approval:
            return True
        decoded = orjson.loads(arguments.strip() or "{}")
        return any(rule.applies(tool, decoded, user_id) for rule in self._rules)


def _rule(entry: str) -> Rule:
    if (found := APPROVE_ENTRY.fullmatch(entry)) is None:
        raise ValueError(f"no rule for approvals: {entry!r}")
    conditions = found["conditions"].split(" and ") if found["conditions"] else []
    return Rule(found["tool"], found["name"], found["pattern"], tuple(map(_condition, conditions)))


def _condition(text: str) -> Condition:
    if (found := APPROVE_CONDITION.fullmatch(text.strip())) is None:
        raise ValueError(f"no condition for approvals: {text!r}")
    if found["price"] is not None:
        return Condition(price=int(found["price"]))
    return Condition(user=found["user"], others=found["compared"] == "!=")


def _matches(text: str, pattern: str) -> bool:
    return fnmatchcase(text.lower(), pattern.lower())


def _texts(value: Any) -> list[str]:
    """A value as the texts that a pattern is compared with: lists and objects by their members."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for member in value.values() for text in _texts(member)]
    if isinstance(value, list):
        return [text for member in value for text in _texts(member)]
    return [orjson.dumps(value).decode()]
