"""A receiver of webhooks: it verifies who sends, and prints what has happened. Here it makes something happen itself.

A receiver on this machine needs LONGHAUL_WEBHOOK_ALLOWED_NETWORKS=127.0.0.0/8 (`make run` and the worker read it).

python examples/webhook_receiver.py
"""

import base64
import hashlib
import hmac
import json
import os
import queue
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from longhaul_client import Longhaul

OLD_S = 300
arrived: "queue.Queue[dict[str, Any]]" = queue.Queue()
seen: set[str] = set()
secret = ""


def is_genuine(body: bytes, headers: Any) -> bool:
    """What `standardwebhooks.Webhook(secret).verify(body, headers)` does, without a library."""
    sent_at = headers["webhook-timestamp"]
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join((headers["webhook-id"].encode(), sent_at.encode(), body))
    wanted = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    genuine = any(hmac.compare_digest(one, wanted) for one in headers["webhook-signature"].split())
    return genuine and abs(time.time() - int(sent_at)) < OLD_S


class Handler(BaseHTTPRequestHandler):
    """Answers 204 as soon as an event is safe. What takes longer is done elsewhere."""

    def do_POST(self) -> None:  # the name that the library wants
        body = self.rfile.read(int(self.headers["content-length"]))
        if not is_genuine(body, self.headers):
            self.send_error(401)
            return
        if self.headers["webhook-id"] not in seen:  # an event may be sent twice, under the same id
            seen.add(self.headers["webhook-id"])
            arrived.put(json.loads(body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Quiet."""


server = HTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
with Longhaul(os.environ.get("LONGHAUL_API_URL", "http://127.0.0.1:8700")) as longhaul:
    webhook = longhaul.webhooks.create(url=f"http://127.0.0.1:{server.server_port}/", events=["turn.ended"])
    secret = webhook.secret or ""
    session = longhaul.sessions.create()
    session.send("What is 17 * 23?")
    while (event := arrived.get(timeout=60))["data"]["session_id"] != session.id:
        print(event)  # the end of a turn of another session
    print(f"{event['type']}: {event['data']['status']}")
    print(session.page().messages[-1].content)
    longhaul.webhooks.delete(webhook.id)
