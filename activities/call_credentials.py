"""The credentials that one tool call is given, and what keeps them out of rows, streams, histories and logs."""

from collections.abc import Awaitable
from functools import partial

from activities.tool_checks import Patience
from longhaul.contracts import RunTool, ToolProgress
from longhaul.credentials.credentials import Credentials, Handed
from longhaul.credentials.oauth import ProviderError
from longhaul.credentials.redaction import Redaction
from longhaul.errors import SetupError, UnavailableError
from longhaul.llm import prompts
from longhaul.tools.context import NotConnectedError, ToolError

#: How often a person is asked for the credential of one call.
CONNECTS_MAX = 3


class CallCredentials:
    """Hands credentials to one call of a tool. `redact` takes them out of what the tool says."""

    def __init__(self, credentials: Credentials, call: RunTool) -> None:
        self._credentials = credentials
        self._call = call
        self._handed: dict[str, Handed] = {}
        self.redact = Redaction()

    async def get(self, name: str) -> str:
        """What the tool may sign in with.

        Raises:
            NotConnectedError: the person has to connect first.
            ToolError: it cannot be had now, or is not set up here.
        """
        try:
            handed = await self._credentials.get(self._call.turn.user_id, name)
        except (SetupError, ProviderError, UnavailableError) as error:
            raise ToolError(prompts.CREDENTIAL_AWAY.format(name=self._call.name, reason=error)) from error
        if handed is None:
            raise NotConnectedError(name)
        self._handed[name] = handed
        self.redact.add(handed.value)
        return handed.value

    async def asking(self, run: Awaitable[str], patience: Patience) -> str:
        """The output of a run of the tool. If it says that a credential does not work, that is noted.

        Raises:
            NotConnectedError: the person is to be asked for a credential.
            ToolError: the tool's failure; or the person was asked often enough.
        """
        try:
            return await run
        except NotConnectedError as missing:
            name, call = missing.credential, self._call
            if (handed := self._handed.get(name)) is not None:
                reject = partial(self._credentials.reject, call.turn.user_id, name, handed.version)
                await patience.when_storage_is_back(reject)
            if call.connects < CONNECTS_MAX:
                raise
            told = prompts.STILL_NOT_CONNECTED.format(name=call.name, credential=name, times=CONNECTS_MAX)
            raise ToolError(told) from None

    def redacted(self, progress: ToolProgress) -> ToolProgress:
        """A report without secrets."""
        return progress.model_copy(update={"text": self.redact(progress.text)})
