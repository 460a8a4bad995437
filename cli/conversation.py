"""A session as people and files get it: its rows, Markdown, JSON, its tree, what it has cost."""

from typing import Any

import orjson
from rich.markup import escape
from rich.tree import Tree

from cli.client import CommandClient

_SPEAKERS = {"user": "You", "assistant": "Copilot"}


def whole(client: CommandClient, session: str) -> dict[str, Any]:
    """A session with all its rows: `{id, title, messages}`."""
    page = client.get(f"/sessions/{session}", limit=200)
    rows: list[dict[str, Any]] = page["messages"]
    while page["has_more_messages"]:
        page = client.get(f"/sessions/{session}", limit=200, before_sequence=page["oldest_sequence"])
        known = {row["id"] for row in rows}
        rows = [row for row in page["messages"] if row["id"] not in known] + rows
    return {"id": page["id"], "title": page["title"], "messages": rows}


def as_json(value: object) -> str:
    """JSON that people can read as well, with a line end."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"


def as_markdown(session: dict[str, Any]) -> str:
    """What was said in a session, as a document."""
    said = [
        f"## {_SPEAKERS[row['role']]}\n\n{row['content']}"
        for row in session["messages"]
        if row["role"] in _SPEAKERS and row["content"]
    ]
    return "\n\n".join([f"# {session['title'] or 'Conversation'}", *said]) + "\n"


def cost_of(usage: dict[str, Any]) -> str:
    """Tokens and dollars, as far as these are known."""
    tokens = f"{usage['prompt_tokens'] + usage['completion_tokens']:,} tokens"
    cost = usage["cost_microdollars"]
    return tokens if cost is None else f"{tokens}, ${cost / 1_000_000:.5f}"


def tree_of(node: dict[str, Any], above: Tree | None = None) -> Tree:
    """A session and all below it."""
    progress = node["progress"] or {}
    tools = ", ".join(progress.get("tools_running", []))
    title = escape(node["title"] or node["session_id"])
    text = f"{title}  [dim]{node['status'] or '-'}  {cost_of(node['total_usage'])}  {tools}[/dim]"
    here = Tree(text) if above is None else above.add(text)
    for child in node["children"]:
        tree_of(child, here)
    return here
