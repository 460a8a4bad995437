"""`python -m api`: one API process. Any number may run: each can serve every request."""

import logging
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server

from api.app import create_app
from longhaul.payloads import data_converter
from longhaul.settings import SettingsError, load_settings

DRAIN_S = 3
# Longer than proxies keep theirs (usually 60 s): if we close first, the proxy's next request hits a closed connection.
KEEP_ALIVE_S = 75


class Server(uvicorn.Server):
    """Ends open streams at shutdown, so that their clients resume elsewhere at once."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        dependencies = getattr(self._app.state, "dependencies", None)
        if dependencies is not None:  # None: the signal came before the start was complete, so no stream is open.
            dependencies.closing = True
        super().handle_exit(sig, frame)


def main() -> int:
    """Serve until a signal; the exit code."""
    try:
        settings = load_settings()
        data_converter(settings.payload_codec)  # here, so that a wrong one is one line
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    for name in ("httpx2", "mcp"):  # They log addresses, which may hold what people search for.
        logging.getLogger(name).setLevel(logging.WARNING)
    if settings.api_metrics_port:
        start_http_server(settings.api_metrics_port, settings.metrics_host)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http="httptools",
        lifespan="on",
        access_log=False,  # Prometheus counts requests, and an address may hold a `?token=`
        log_config=None,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=DRAIN_S,
    )
    server = Server(config, app)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
