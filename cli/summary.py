"""What `up` prints when the stack is ready: where things are, and a first message ready to paste."""

from cli.stack.state import StackState
from longhaul.settings import Settings

EXAMPLE = "What is 12 * (3 + 4)?"


def curl_example(api_url: str, *, token: bool) -> str:
    """Shell lines that create a session and stream an answer in which the calculator is used."""
    headers = " -H 'content-type: application/json'" + (' -H "authorization: Bearer $LONGHAUL_TOKEN"' if token else "")
    take_id = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"id\"])'"
    return (
        f"SESSION=$(curl -sS {api_url}/v1/sessions{headers} -d '{{}}' | {take_id}) && \\\n"
        f'curl -N {api_url}/v1/sessions/$SESSION/stream{headers} -d \'{{"message": "{EXAMPLE}"}}\''
    )


def summary(state: StackState, settings: Settings) -> str:
    """The URLs and the `curl`."""
    at = state.endpoints
    lines = [
        ("API docs", f"{at.api_url}/docs"),
        ("Temporal Web UI", at.temporal_ui_url or "(not ours; set LONGHAUL_TEMPORAL_UI_URL to show it here)"),
        ("Temporal", at.temporal_address),
        ("Redis", at.redis_url),
        ("Database", at.database_url),
        ("Model", at.model_base_url + (" (offline stand-in)" if "model" in state.embedded else "")),
    ]
    width = max(len(name) for name, _ in lines)
    table = "\n".join(f"  {name:<{width}}  {where}" for name, where in lines)
    example = curl_example(at.api_url, token=settings.auth == "jwt")
    return f"\nLonghaul runs.\n{table}\n\nA first message, to paste into another terminal:\n\n{example}\n"


__all__ = ["EXAMPLE", "curl_example", "summary"]
