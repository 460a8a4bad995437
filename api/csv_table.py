"""Tables as CSV, RFC 4180."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

MEDIA_TYPE = "text/csv"
#: For the documentation of a route.
CSV_RESPONSE: dict[str, Any] = {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
#: Spreadsheets take a cell that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_response(name: str, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> Response:
    """A table with a line of names; null is an empty cell. Text that looks like a formula gets a quote in front."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(row[column]) for column in columns])
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(text.getvalue(), headers=headers, media_type=MEDIA_TYPE)


def _cell(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
