"""What belongs to the calling user."""

from typing import Annotated

from fastapi import APIRouter, Depends

from api.dependencies import CurrentUser, Deps
from api.problems import RESPONSES, TOO_LARGE
from api.request_body import body_schema, json_body
from api.schemas.sessions import Profile
from longhaul.db import profiles
from longhaul.errors import NotFoundError

router = APIRouter(prefix="/v1/me", tags=["me"], responses=RESPONSES)


@router.get("/profile", summary="What the copilot is told about you")
async def get_profile(user: CurrentUser, deps: Deps) -> Profile:
    """404 while there is none."""
    async with deps.database.read() as connection:
        content = await profiles.get(connection, user)
    if content is None:
        raise NotFoundError("You have no profile.")
    return Profile(content=content)


@router.put(
    "/profile", summary="Tell the copilot about yourself", responses=TOO_LARGE, openapi_extra=body_schema(Profile)
)
async def put_profile(user: CurrentUser, deps: Deps, body: Annotated[Profile, Depends(json_body(Profile))]) -> Profile:
    """It is given to the model once in each session, with the first message, from the next model call on."""
    async with deps.database.write() as connection:
        await profiles.put(connection, user, body.content)
        content = await profiles.get(connection, user)
    return Profile(content=content or body.content)


@router.delete("/profile", status_code=204, summary="Let the copilot forget it")
async def delete_profile(user: CurrentUser, deps: Deps) -> None:
    """Also if there is none."""
    async with deps.database.write() as connection:
        await profiles.remove(connection, user)
