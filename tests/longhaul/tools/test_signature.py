"""A tool from a function's signature and docstring: what the model is told, and what the function is given."""

import asyncio
from collections.abc import Callable
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from longhaul.tools import Tool, ToolContext, ToolError, tool


class Place(BaseModel):
    city: str
    country: str = "DE"


@tool
async def weather(
    place: Place,
    day: date,
    context: ToolContext,
    unit: Literal["C", "F"] = "C",
    hours: Annotated[int, Field(ge=1, le=24, description="How many hours")] = 24,
    tags: list[str] | None = None,
) -> dict[str, Any]:
    """The weather of a day.

    It is a forecast, and may be wrong.

    Args:
        place: Where.
        day: Which day, in the time zone
            of the place.
        hours: The words of the type count, not these.
    """
    return {"city": place.city, "day": day, "unit": unit, "hours": hours, "tags": tags, "user": context.user_id}


def test_the_schema_is_the_signature() -> None:
    assert (weather.name, weather.changes, weather.repeatable) == ("weather", False, True)
    function = weather.schema["function"]
    assert function["description"] == "The weather of a day.\nIt is a forecast, and may be wrong."
    parameters = function["parameters"]
    assert parameters["required"] == ["place", "day"]
    told = parameters["properties"]
    assert set(told) == {"place", "day", "unit", "hours", "tags"}, "the context is not the model's business"
    assert told["day"] == {
        "type": "string",
        "format": "date",
        "description": "Which day, in the time zone of the place.",
    }
    assert told["hours"]["description"] == "How many hours"
    assert told["unit"]["enum"] == ["C", "F"]
    assert parameters["$defs"]["Place"]["properties"]["country"]["default"] == "DE"


async def run(made: Tool, arguments: str, context: ToolContext) -> str:
    assert made.run is not None
    return await made.run(made.parse(arguments), context)


async def test_the_function_gets_typed_arguments_and_its_context(context: ToolContext) -> None:
    output = await run(weather, '{"place": {"city": "Bonn"}, "day": "2026-11-21", "hours": 3}', context)
    assert output == '{"city":"Bonn","day":"2026-11-21","unit":"C","hours":3,"tags":null,"user":"u"}'


@pytest.mark.parametrize(
    ("arguments", "defect"),
    [
        ('{"day": "2026-11-21"}', "weather: place: Field required"),
        ('{"place": {"city": "Bonn"}, "day": "tomorrow"}', "weather: day: Input should be a valid date"),
        ('{"place": {"city": 1}, "day": "2026-11-21"}', "weather: place.city: Input should be a valid string"),
        ('{"place": {"city": "B"}, "day": "2026-11-21", "hours": 25}', "weather: hours: Input should be less"),
    ],
)
def test_wrong_arguments_are_named(arguments: str, defect: str) -> None:
    with pytest.raises(ToolError, match=f"^{defect}"):
        weather.parse(arguments)


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("as it is", "as it is"),
        (None, "Done."),
        ([1, "a"], '[1,"a"]'),
        (Place(city="X"), '{"city":"X","country":"DE"}'),
    ],
)
async def test_every_output_is_text(output: object, text: str, context: ToolContext) -> None:
    @tool(name="give")
    async def any_name() -> object:
        """Give."""
        return output

    assert any_name.name == "give"
    assert await run(any_name, "", context) == text


async def not_described(city: str) -> str:
    return city


def not_async(city: str) -> str:
    """Blocks."""
    return city


async def not_typed(city) -> str:  # type: ignore[no-untyped-def]
    """Has no type."""
    return str(city)


async def not_named(*cities: str) -> str:
    """Has arguments without names."""
    return "".join(cities)


async def not_json(lock: asyncio.Lock) -> str:
    """Wants what JSON cannot say."""
    return str(lock)


async def not_known(city: "Missing") -> str:  # type: ignore[name-defined]  # noqa: F821
    """Has a type that is not there."""
    return str(city)


async def not_a_field(_city: str) -> str:
    """Has an argument that no model can have."""
    return _city


@pytest.mark.parametrize(
    ("function", "defect"),
    [
        (not_described, "has no docstring"),
        (not_async, "must be an `async def`.*asyncio.to_thread"),
        (not_typed, "argument 'city' has no type"),
        (not_named, "give each argument a name"),
        (not_json, "have no JSON Schema"),
        (not_known, "a type of its signature is unknown.*Missing"),
        (not_a_field, "cannot begin with _"),
    ],
)
def test_what_cannot_be_a_tool_is_refused_when_it_is_made(function: Callable[..., Any], defect: str) -> None:
    with pytest.raises(ValueError, match=f"^tool '{function.__name__}'.*{defect}"):
        tool(function)


def test_a_dry_run_says_what_a_call_would_do() -> None:
    @tool(changes=True, would="send {subject!r} to {to}")
    async def send(to: str, subject: str) -> None:
        """Send."""

    text = send.told(send.parse('{"to": "{subject.__class__}", "subject": "Hi"}'))
    assert text == "Dry run: send was not run. It would send 'Hi' to {subject.__class__}."
    assert len(send.told(send.parse('{"to": "x", "subject": "' + "y" * 9_000 + '"}'))) < 1_100


async def test_progress_is_short_and_cancellation_is_seen_in_threads(context: ToolContext) -> None:
    seen: list[int] = []
    watched = ToolContext(
        "u", "s", "t", "c", context.workspace, context.scope, report=lambda one: seen.append(len(one.text))
    )
    watched.progress("x" * 10_000, done=1, total=2)
    assert seen == [500]
    assert not watched.cancelled
    watched.ended.set()
    assert await asyncio.to_thread(lambda: watched.cancelled)
