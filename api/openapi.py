"""The OpenAPI document: FastAPI's, with the bodies that we read ourselves and with problems in place of its errors."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.dependencies import ID
from api.idempotency import KEY_MAX
from api.problems import Problem, described
from api.request_body import BODIES

TAGS = [
    {"name": "sessions", "description": "Conversations and their sub-sessions."},
    {"name": "messages", "description": "Say something; watch the answer come."},
    {"name": "turns", "description": "What one message set off: progress, history, Stop."},
    {"name": "shares", "description": "Read-only links, and what they show."},
    {"name": "files", "description": "Files for messages, and files that tools have made."},
    {"name": "models", "description": "What may answer."},
    {"name": "tool workers", "description": "For tool workers only, which show call tokens instead of a user's."},
    {"name": "operations", "description": "For those who run it."},
]


KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_MAX, "pattern": ID},
    "description": "The same request with the same key does nothing twice; within a day it gets the same answer.",
}
IN_PROGRESS = described(409, "The first request with this Idempotency-Key is still being handled.")
INVALID = described(422, "The request is not valid, or its Idempotency-Key was sent with another one.")


def operation_id(route: APIRoute) -> str:
    """A short name of a route for generated clients, such as `files_upload`: its file and its function."""
    return f"{route.endpoint.__module__.rsplit('.', 1)[-1]}_{route.name}"


def _add_key(operation: dict[str, Any]) -> None:
    """Document the `Idempotency-Key` of a POST."""
    others = [one for one in operation.get("parameters", ()) if one["name"] != KEY["name"]]
    operation["parameters"] = [*others, KEY]
    for status, response in {**IN_PROGRESS, **INVALID}.items():
        operation["responses"].setdefault(str(status), response)


def install(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes, tags=TAGS
            )
            models: list[type[BaseModel]] = [*BODIES, Problem]
            _, ours = models_json_schema(
                [(model, "validation") for model in models],
                ref_template="#/components/schemas/{model}",
            )
            schemas = schema.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(ours["$defs"])
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            schema["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
            schema["security"] = [{"bearer": []}, {}]
            for path, methods in schema["paths"].items():
                if "post" in methods and path.startswith("/v1/"):
                    _add_key(methods["post"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend the document
