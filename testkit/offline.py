"""The offline model on a real socket, in a thread of this process: for tests that need nothing else of the stack."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from offline_model.app import OfflineApp
from offline_model.script import Pace
from testkit.wait import LIMIT_S


@contextmanager
def offline_model() -> Iterator[str]:
    """The URL of a server that answers at once.

    Raises:
        AssertionError: it did not start.
    """
    # The socket is bound here, so no other process can take its port before the server does.
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    app = OfflineApp(Pace(ttft=0, delay=0))
    config = uvicorn.Config(app, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    deadline = time.monotonic() + LIMIT_S
    while not server.started:
        assert time.monotonic() < deadline, "the offline model did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join(5)
