"""What handlers are given: the parts, and those things made of them that need no building per request."""

from typing import Annotated, Any

from fastapi import Depends, Path
from sqlalchemy.engine import Row
from starlette.requests import HTTPConnection

from api.admission import Admission
from api.kernel import Kernel
from api.live import Live
from api.services import Services, User
from copilot.db import sessions


class Context:
    """The API's own collaborators, one set a process."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.settings = services.settings
        self.database = services.database
        self.live = Live(services)
        self.kernel = Kernel(services, self.live)
        self.admission = Admission(services)


def context_of(connection: HTTPConnection) -> Context:
    found: Context = connection.app.state.context
    return found


Ctx = Annotated[Context, Depends(context_of)]
SessionId = Annotated[str, Path(max_length=64, description="Id of a session.")]


async def own_session(session_id: SessionId, user: User, context: Ctx) -> Row[Any]:
    """The session that a path names, if it is the caller's; else it reads as if there were none."""
    async with context.database.read() as connection:
        return await sessions.get(connection, session_id, user)


OwnSession = Annotated[Row[Any], Depends(own_session)]
