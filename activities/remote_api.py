"""The API as a tool worker uses it: begins calls, reports progress, gives results, also when the API is away."""

import asyncio
import logging
import time
from typing import Any

import httpx2
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.attempt import handed_over, stop_requested
from activities.tool_results import ToolResult
from longhaul.contracts import ToolProgress, ToolStatus
from longhaul.errors import STORAGE_UNAVAILABLE, LonghaulError
from longhaul.llm import prompts
from longhaul.remote_tools.keys import Claim, WorkerKey

log = logging.getLogger(__name__)
REFUSED = "ToolWorkerRefused"
REQUEST_S, REPORT_S = 60.0, 5.0
PAUSE_S, PAUSE_MAX_S = 0.2, 5.0
#: The API, or something on the way to it, cannot answer now.
NOT_NOW = frozenset({408, 425, 429, 500, 502, 503, 504})


class RefusedError(LonghaulError):
    """An answer of the API that trying again does not change. `code`: its name; empty: the API did not name it."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"The API refuses this tool worker: {status} {detail}")
        self.status = status
        self.code = code


class ToolCallApi:
    """Asks the API on behalf of this worker; `window_s`: how long an API that is away is waited for."""

    def __init__(self, url: str, key: WorkerKey, window_s: float) -> None:
        self._http = httpx2.AsyncClient(base_url=f"{url.rstrip('/')}/v1/tool-calls/", timeout=REQUEST_S)
        self._key = key
        self._window_s = window_s

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def begin(self, claim: Claim) -> "RemoteAttempt | None":
        """Begin an attempt at a call; None: the call has its result already.

        Raises:
            ApplicationError: `ToolWorkerRefused`; `StorageUnavailable`; `HandedOver`.
        """
        attempt = RemoteAttempt(self, claim)
        try:
            await attempt.renew()
        except RefusedError as error:
            if error.code == "result-given":
                return None
            raise refused(error) from error
        return attempt

    def proof(self, claim: Claim) -> str:
        """What shows the API that this worker has the task of an attempt."""
        return self._key.proof(claim)

    async def post(self, path: str, bearer: str, body: dict[str, Any]) -> dict[str, Any]:
        """What the API answers, as soon as it can be reached.

        Raises:
            RefusedError: it says no.
            ApplicationError: `StorageUnavailable`: it was away for too long. `HandedOver`.
        """
        deadline, pause = time.monotonic() + self._window_s, PAUSE_S
        try:
            while True:
                problem = "no answer"
                try:
                    return await self.post_once(path, bearer, body)
                except RefusedError as error:
                    if error.status not in NOT_NOW:
                        raise
                    problem = str(error)
                except httpx2.TransportError as error:
                    problem = f"{type(error).__name__} {error}".strip()
                if time.monotonic() > deadline:
                    raise ApplicationError("The API cannot be reached.", type=STORAGE_UNAVAILABLE)
                log.warning("%s is asked again in %.1f s: %s", path, pause, problem)
                await asyncio.sleep(pause)
                pause = min(pause * 2, PAUSE_MAX_S)
        except asyncio.CancelledError:
            if activity.is_worker_shutdown() and not stop_requested():
                raise handed_over() from None
            raise

    async def post_once(
        self, path: str, bearer: str, body: dict[str, Any], timeout_s: float = REQUEST_S
    ) -> dict[str, Any]:
        """What the API answers now.

        Raises:
            RefusedError: it says no, or that it cannot answer now.
            httpx2.TransportError: it cannot be reached.
        """
        headers = {"authorization": f"Bearer {bearer}"}
        answer = await self._http.post(path, json=body, headers=headers, timeout=timeout_s)
        if answer.is_success:
            return dict(answer.json()) if answer.content else {}
        try:
            problem = dict(answer.json())
        except ValueError:
            problem = {}
        detail = str(problem.get("detail") or answer.reason_phrase)
        raise RefusedError(answer.status_code, str(problem.get("code", "")), detail)


class RemoteAttempt:
    """One attempt at a call, with its token. A token that counts no more for its age is renewed by another proof."""

    def __init__(self, api: ToolCallApi, claim: Claim) -> None:
        self._api = api
        self._claim = claim
        self._token = ""
        self.arguments = ""

    async def renew(self) -> None:
        """Get a token, and the arguments with it. Raises as `ToolCallApi.post`."""
        begun = await self._api.post("begin", self._api.proof(self._claim), {})
        self._token, self.arguments = begun["token"], begun["arguments"]

    async def report(self, progress: ToolProgress) -> None:
        """Show how far the call is, if the API can be reached; nothing depends on it."""
        body = progress.model_dump()
        try:
            try:
                await self._api.post_once("progress", self._token, body, REPORT_S)
            except RefusedError as error:
                if error.status != 401:
                    raise
                await self.renew()
                await self._api.post_once("progress", self._token, body, REPORT_S)
        except (RefusedError, httpx2.TransportError, ApplicationError) as error:
            log.info("a report is not shown: %s", error)

    async def give(self, result: ToolResult) -> None:
        """Give the call's result. If another was given first, that one counts.

        Raises:
            ApplicationError: `ToolWorkerRefused`; `StorageUnavailable`; `HandedOver`.
        """
        try:
            try:
                await self._give(result)
            except RefusedError as error:
                if error.status != 413:
                    raise
                await self._give(ToolResult(output=prompts.RESULT_TOO_LARGE, status=ToolStatus.ERROR))
        except RefusedError as error:
            if error.code != "result-given":
                raise refused(error) from error

    async def _give(self, result: ToolResult) -> None:
        body = {"status": result.status, "output": result.output, "duration_ms": result.duration_ms}
        try:
            await self._api.post("result", self._token, body)
        except RefusedError as error:
            # A report may have renewed the token without having heard of it.
            if error.status != 401 and error.code != "token-replaced":
                raise
            await self.renew()
            await self._api.post("result", self._token, body)


def refused(error: RefusedError) -> ApplicationError:
    """A refusal as the end of the attempt: what the API refuses now it refuses the next time."""
    return ApplicationError(str(error), type=REFUSED, non_retryable=True)
