"""`python -m offline_model --port N`: run the offline model by itself."""

import argparse

import uvicorn

from offline_model.app import DEFAULT_PACE, OfflineApp
from offline_model.script import Pace


def main() -> None:
    """Serve until SIGTERM or SIGINT; streams that still run then are cut after a second."""
    parser = argparse.ArgumentParser(prog="python -m offline_model", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ttft-ms", type=float, default=DEFAULT_PACE.ttft, help="time to the first token")
    parser.add_argument("--token-delay-ms", type=float, default=DEFAULT_PACE.delay, help="time between tokens")
    args = parser.parse_args()
    print(f"offline model on http://{args.host}:{args.port}/v1", flush=True)
    uvicorn.run(
        OfflineApp(Pace(ttft=args.ttft_ms, delay=args.token_delay_ms)),
        host=args.host,
        port=args.port,
        access_log=False,
        log_level="warning",
        lifespan="off",
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
