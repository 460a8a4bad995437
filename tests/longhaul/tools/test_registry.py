"""What the model is told about tools, and what becomes of what it writes."""

import orjson
import pytest
from pydantic import BaseModel, Field

from longhaul.contracts import Scope
from longhaul.tools import Registry, Tool, ToolContext, ToolError, default_tools, tool
from longhaul.tools.registry import SCHEMAS_MAX_CHARS, ToolOptions
from longhaul.tools.workflow_tools import WORKFLOW_TOOLS


class Point(BaseModel):
    x: int = Field(ge=0, description="How far right")
    label: str = "here"


@tool(Point, "Mark a point.", repeatable=False, changes=True)
async def mark(arguments: Point, context: ToolContext) -> str:
    return f"{arguments.label}: {arguments.x}"


@tool(Point, "Look at a point.")
async def look(arguments: Point, context: ToolContext) -> str:
    return ""


TOOLS = Registry([mark, look])
CHANGES = [(False, None), (True, None), (True, True), (False, False)]


def test_a_tool_is_its_function() -> None:
    assert (mark.name, mark.repeatable, mark.changes) == ("mark", False, True)
    assert (look.name, look.repeatable, look.changes) == ("look", True, False)


def test_a_tool_that_changes_something_runs_once_unless_it_says_otherwise() -> None:
    """However it is made."""
    made = [tool(Point, "…", changes=changes, repeatable=repeatable)(measure) for changes, repeatable in CHANGES]
    made += [
        Tool("measure", "…", Point, measure, changes=changes, repeatable=repeatable) for changes, repeatable in CHANGES
    ]
    assert [one.repeatable for one in made] == [True, False, True, False] * 2


async def measure(arguments: Point, context: ToolContext) -> str:
    return ""


def test_what_is_quick_is_so_by_its_own_word() -> None:
    registry = Registry([look, tool(Point, "Measure a point.", quick=True)(measure)])
    assert [one.quick for one in registry] == [False, True]


@pytest.mark.parametrize(
    ("options", "defect"),
    [
        ({"quick": True, "changes": True}, "cannot be quick"),
        ({"quick": True, "repeatable": False}, "cannot be quick"),
        ({"quick": True, "timeout": 1.0}, "cannot have retries or a timeout"),
        ({"quick": True, "retries": 1}, "cannot have retries or a timeout"),
        ({"changes": True, "retries": 1}, "say repeatable=True"),
        ({"retries": -1}, "cannot be negative"),
        ({"timeout": 0.0}, "more than 0 seconds"),
        ({"would": "go to {place}"}, "`would` names 'place'"),
        ({"would": "go to {}"}, "`would` names ''"),
        ({"name": "a b"}, "a name has"),
        ({"name": "x" * 65}, "a name has"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: ToolOptions, defect: str) -> None:
    with pytest.raises(ValueError, match=f"^tool '.*': .*{defect}"):
        tool(Point, "Measure a point.", **options)(measure)


def test_the_schema_is_what_the_model_needs() -> None:
    assert mark.schema == {
        "type": "function",
        "function": {
            "name": "mark",
            "description": "Mark a point.",
            "parameters": {
                "type": "object",
                "properties": {
                    "x": {"type": "integer", "minimum": 0, "description": "How far right"},
                    "label": {"type": "string", "default": "here"},
                },
                "required": ["x"],
            },
        },
    }


def test_all_schemas_together_stay_small() -> None:
    text = orjson.dumps(default_tools().schemas(Scope())).decode()
    assert 1_000 < len(text) < SCHEMAS_MAX_CHARS == 32_000


def test_schemas_are_the_same_every_time() -> None:
    assert default_tools().schemas(Scope()) == default_tools().schemas(Scope())
    names = [found.name for found in default_tools()]
    assert len(names) == len(set(names)) == 13
    assert {found.name for found in default_tools() if found.run is None} == {*WORKFLOW_TOOLS, "ask_user"}


@pytest.mark.parametrize(
    ("scope", "names"),
    [
        (Scope(), ["mark", "look"]),
        (Scope(allow_tools=("look",)), ["look"]),
        (Scope(allow_tools=()), []),
        (Scope(deny_tools=("look",)), ["mark"]),
        (Scope(allow_tools=("look", "mark"), deny_tools=("look",)), ["mark"]),
        (Scope(allow_tools=("nothing",)), []),
    ],
)
def test_a_scope_narrows(scope: Scope, names: list[str]) -> None:
    assert [found.name for found in TOOLS.allowed(scope)] == names
    assert [schema["function"]["name"] for schema in TOOLS.schemas(scope)] == names
    for name in ("mark", "look"):
        if name in names:
            assert TOOLS.get(name, scope).name == name
        else:
            with pytest.raises(
                ToolError, match=f"'{name}' is not allowed in this session. Available: {', '.join(names)}"
            ):
                TOOLS.get(name, scope)


def test_an_unknown_tool_names_those_that_are() -> None:
    with pytest.raises(ToolError, match=r"'fly' does not exist\. Available: look, mark\."):
        TOOLS.get("fly", Scope())
    with pytest.raises(ToolError, match="does not exist"):
        TOOLS.get("", Scope())


@pytest.mark.parametrize(
    ("arguments", "defect"),
    [
        ("{", "mark: the arguments are not valid JSON"),
        ("[]", "mark: the arguments must be a JSON object"),
        ("", "mark: x: Field required"),
        ("  ", "mark: x: Field required"),
        ('{"x": -1}', "mark: x: Input should be greater than or equal to 0"),
        (
            '{"x": "a", "label": 5}',
            "mark: x: Input should be a valid integer, .*; label: Input should be a valid string",
        ),
        ("[" * 100_000, "mark: the arguments are not valid JSON"),
    ],
)
def test_a_defect_is_named_in_one_line(arguments: str, defect: str) -> None:
    with pytest.raises(ToolError, match=defect) as raised:
        mark.parse(arguments)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 1000


def test_arguments_are_typed() -> None:
    assert mark.parse(' {"x": 3, "unknown": 1} ') == Point(x=3)
    assert look.parse('{"x": 3, "label": "\\u00fc"}') == Point(x=3, label="ü")
