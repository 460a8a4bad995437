"""A turn that delegates to two sub-sessions, which work in parallel, and the tree that they make."""

import os

import httpx2

from longhaul_client import Longhaul

url = os.environ.get("LONGHAUL_API_URL", "http://127.0.0.1:8700")
with Longhaul(url) as longhaul:
    session = longhaul.sessions.create()
    print(session.ask("delegate: what is 2*3?; what is 4*5?").text)


def show(node: dict[str, object], depth: int = 0) -> None:
    print(f"{'  ' * depth}{node['status']}: {node['title']}")
    for child in node["children"] if isinstance(node["children"], list) else ():
        show(child, depth + 1)


show(httpx2.get(f"{url}/v1/sessions/{session.id}/tree").json())
