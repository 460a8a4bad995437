"""What handlers are given: the parts, and those things made of them that need no building per request."""

from typing import Annotated

from fastapi import Depends, Path
from starlette.requests import HTTPConnection

from api.deliver import Kernel
from api.ownership import OwnedSessions, SessionRecord
from api.rate_limit import Admission
from api.services import Services, User
from api.status import Live


class Context:
    """The API's own collaborators, one set a process."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.settings = services.settings
        self.database = services.database
        self.sessions = OwnedSessions(services.database, services.redis, services.settings.session_copy_ttl)
        self.live = Live(services)
        self.kernel = Kernel(services, self.live)
        self.admission = Admission(services)


def context_of(connection: HTTPConnection) -> Context:
    found: Context = connection.app.state.context
    return found


Ctx = Annotated[Context, Depends(context_of)]
SessionId = Annotated[str, Path(max_length=64, description="Id of a session.")]


async def own_session(session_id: SessionId, user: User, context: Ctx) -> SessionRecord:
    """The session that a path names, if it is the caller's; else it reads as if there were none."""
    return await context.sessions.get(session_id, user)


OwnSession = Annotated[SessionRecord, Depends(own_session)]
