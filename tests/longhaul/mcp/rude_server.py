"""An MCP server that does what servers must not do; a program of its own, written without the SDK.

It speaks the protocol of 2025. Its tool `do` takes `how`, a way of misbehaving.
"""

import json
import os
import signal
import sys
import time
from typing import Any

DO = {
    "name": "do",
    "description": "Misbehave.",
    "inputSchema": {"type": "object", "properties": {"how": {"type": "string"}}, "required": ["how"]},
    "annotations": {"readOnlyHint": os.environ.get("READ_ONLY") == "yes"},
}


def send(**message: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def do(how: str) -> str:
    match how:
        case "show the environment":
            return json.dumps(dict(os.environ))
        case "say your number":
            return str(os.getpid())
        case "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(3_600)
        case "send 50 MB":
            return "x" * 50_000_000
        case "send 50 MB without an end":
            sys.stdout.write("x" * 50_000_000)
            sys.stdout.flush()
            time.sleep(3_600)
        case "die":
            sys.stderr.write("something went wrong\n")
            sys.stderr.flush()
            os._exit(3)
        case "die once":
            if not os.path.exists(os.environ["MARK"]):  # noqa: PTH110  # it starts faster without pathlib
                open(os.environ["MARK"], "w").close()  # noqa: PTH123
                os._exit(3)
            return "alive again"
        case "write nonsense":
            sys.stdout.write("no JSON\n{}\n[]\n" + "[" * 5_000 + "\n")
    return how


for line in sys.stdin:
    asked = json.loads(line)
    match asked.get("method"):
        case "initialize":
            about = {"capabilities": {"tools": {"listChanged": True}}, "serverInfo": {"name": "rude", "version": "1"}}
            send(id=asked["id"], result={"protocolVersion": "2025-06-18", **about})
        case "tools/list":
            send(id=asked["id"], result={"tools": [DO]})
        case "tools/call":
            text = do(asked["params"]["arguments"]["how"])
            send(id=asked["id"], result={"content": [{"type": "text", "text": text}]})
        case _ if "id" in asked:
            send(id=asked["id"], error={"code": -32601, "message": "Method not found"})
