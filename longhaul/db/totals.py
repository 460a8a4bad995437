"""Totals of the ledger: what all calls together have used, by user, agent, model, kind and day."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, String, func, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from longhaul.contracts import Usage
from longhaul.db.connection import Connection
from longhaul.db.ledger import IS_SPENT, TOTALS
from longhaul.db.models import LedgerRow, LedgerStatus


class utc_day(GenericFunction[str]):  # noqa: N801  # a function of SQL
    """The day in UTC of a moment, as `2026-11-22`."""

    type = String()
    inherit_cache = True


@compiles(utc_day, "sqlite")
def _sqlite_day(element: utc_day, compiler: SQLCompiler, **options: Any) -> str:
    return f"date({compiler.process(element.clauses, **options)})"


@compiles(utc_day, "postgresql")
def _postgresql_day(element: utc_day, compiler: SQLCompiler, **options: Any) -> str:
    return f"to_char({compiler.process(element.clauses, **options)} AT TIME ZONE 'UTC', 'YYYY-MM-DD')"


class Group(StrEnum):
    """What totals can be asked by."""

    USER = "user"
    AGENT = "agent"
    MODEL = "model"
    KIND = "kind"
    DAY = "day"


_COLUMNS: dict[Group, ColumnElement[Any]] = {
    Group.USER: LedgerRow.user_id.expression,
    Group.AGENT: LedgerRow.agent.expression,
    Group.MODEL: LedgerRow.model.expression,
    Group.KIND: LedgerRow.kind.expression,
    Group.DAY: utc_day(LedgerRow.created_at),
}


@dataclass(frozen=True)
class Filters:
    """Which rows count; None: all. `since` is the first moment, `until` the first one that does not count."""

    user: str | None = None
    agent: str | None = None
    model: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        chosen = {_COLUMNS[group]: getattr(self, group) for group in Group if group is not Group.DAY}
        found = [column == value for column, value in chosen.items() if value is not None]
        if self.since is not None:
            found.append(LedgerRow.created_at >= self.since)
        if self.until is not None:
            found.append(LedgerRow.created_at < self.until)
        return found


@dataclass(frozen=True)
class Total:
    """The total of one group; `keys` in the order that was asked for.

    `estimated`: rows that are estimates. `unpriced`: rows of an unknown cost, which `usage` does not contain.
    """

    keys: tuple[str | None, ...]
    usage: Usage
    estimated: int
    unpriced: int


async def totals(connection: Connection, by: Sequence[Group], filters: Filters, most: int) -> list[Total]:
    """The totals of each group, in the order of their keys; `most` of them. `by` names at least one column."""
    columns = [_COLUMNS[group].label(f"by_{group}") for group in by]
    statement = (
        select(
            *columns,
            *TOTALS,
            func.count(LedgerRow.id).filter(LedgerRow.status == LedgerStatus.ESTIMATED).label("estimated"),
            func.count(LedgerRow.id).filter(LedgerRow.cost_microdollars.is_(None)).label("unpriced"),
        )
        .where(IS_SPENT, *filters.conditions())
        .group_by(*(_COLUMNS[group] for group in by))
        .order_by(*(_COLUMNS[group] for group in by))
        .limit(most)
    )
    return [
        Total(
            keys=tuple(row[: len(by)]),
            usage=Usage.model_validate(row._mapping),
            estimated=row.estimated,
            unpriced=row.unpriced,
        )
        for row in await connection.execute(statement)
    ]
