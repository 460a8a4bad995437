"""Tools that compute their answer at once: arithmetic, and the current time.

Arithmetic is evaluated on a syntax tree: no names, a fixed list of functions, no `eval`.
"""

import ast
import math
import operator
from collections.abc import Callable
from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, Field

from longhaul.tools.context import ToolContext, ToolError
from longhaul.tools.registry import tool

Number = int | float
EXPONENT_MAX = 10_000
DIGITS_MAX = 4_000
LARGEST = 10**DIGITS_MAX
PLACES_MAX = 400


def rounded(value: Number, places: int = 0) -> Number:
    """`round` with bounded places: for -10**9 places, Python's own would calculate a power of ten for days."""
    if abs(places) > PLACES_MAX:
        raise ToolError(f"round() takes at most {PLACES_MAX} places.")
    return round(value, places) if places else round(value)


OPERATORS: dict[type[ast.AST], Callable[..., Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS: dict[str, Callable[..., Number]] = {
    name: getattr(math, name) for name in ("sqrt", "sin", "cos", "tan", "log", "log10", "exp", "floor", "ceil")
} | {"abs": abs, "round": rounded, "min": min, "max": max}
CONSTANTS = {"pi": math.pi, "e": math.e}


class Expression(BaseModel):
    expression: str = Field(max_length=1000, description="Arithmetic, e.g. (2 + 3) * 4 ** 2 / sqrt(16)")


@tool(Expression, "Calculate an arithmetic expression exactly.", quick=True)
async def calculator(arguments: Expression, context: ToolContext) -> str:  # noqa: ARG001
    return str(calculate(arguments.expression))


class Zone(BaseModel):
    timezone: str = Field("UTC", max_length=100, description="IANA name, e.g. Europe/Berlin")


@tool(Zone, "The current date and time.", quick=True)
async def current_time(arguments: Zone, context: ToolContext) -> str:  # noqa: ARG001
    try:
        zone = ZoneInfo(arguments.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:  # OSError: the name of a folder of zones
        raise ToolError(f"There is no time zone {arguments.timezone!r}.") from error
    return datetime.now(UTC).astimezone(zone).isoformat(timespec="seconds")


def calculate(expression: str) -> Number:
    """The value of an expression.

    Raises:
        ToolError: it is not arithmetic, its value is too large, or it has no value.
    """
    try:
        value = _value(ast.parse(expression.replace("^", "**").strip(), mode="eval").body)
    except (SyntaxError, RecursionError) as error:
        raise ToolError(f"{expression!r} is not an arithmetic expression.") from error
    except (ArithmeticError, ValueError, TypeError) as error:
        raise ToolError(f"{expression!r} cannot be calculated: {error}") from error
    return _bounded(value)


def _bounded(value: Number) -> Number:
    """`value`; refused if further calculation with it would take long."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise ToolError(f"The result has more than {DIGITS_MAX} digits.")
    return value


def _value(node: ast.AST) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _bounded(OPERATORS[type(op)](_value(left), _value(right)))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(operand))
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*map(_value, args))
    raise ToolError(f"{ast.unparse(node)!r} is not allowed; use numbers, + - * / // % **, {', '.join(FUNCTIONS)}.")


def _power(base: Number, exponent: Number) -> Number:
    if abs(exponent) > EXPONENT_MAX or (isinstance(base, int) and base.bit_length() * abs(exponent) > DIGITS_MAX * 4):
        raise ToolError("That power is too large.")
    result: Number = base**exponent
    if isinstance(result, complex):
        raise ToolError("The result is not a real number.")
    return result
