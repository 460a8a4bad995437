"""The starts of one tool call: how often, for how long, and how each ends. The same on every kind of worker."""

import asyncio
import logging
import random
from collections.abc import Callable
from datetime import timedelta
from traceback import format_exc

from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.attempt import checkpoint, handed_over, stop_requested
from activities.tool_progress import ToolReports
from activities.tool_results import ToolResult
from longhaul.contracts import RunTool, ToolProgress
from longhaul.errors import TOOL_RETRY, new_reference
from longhaul.llm import prompts
from longhaul.tools import NotConnectedError, Tool, ToolContext, ToolError

log = logging.getLogger(__name__)
RETRY_PAUSE_S, RETRY_PAUSE_FACTOR, RETRY_PAUSE_MAX_S = 1.0, 2.0, 20.0


class ToolState(BaseModel):
    """Checkpoint of a tool run: how often it was started, and its result until that is stored.

    `failures`: how many of the starts ended by an exception of the tool.
    """

    starts: int = 0
    failures: int = 0
    result: ToolResult | None = None


class ToolRun:
    """One tool call in this attempt of its activity; `state`: the checkpoint of the attempts before.

    `redact`: takes the secrets that the tool was given out of a text.
    """

    def __init__(self, call: RunTool, tool: Tool, state: ToolState | None, redact: Callable[[str], str] = str) -> None:
        self._call = call
        self._tool = tool
        self._redact = redact
        # Without a checkpoint, assume that the earlier attempts ran a tool that must not run twice.
        assumed_starts = 0 if tool.repeatable else activity.info().attempt - 1
        self._starts = state.starts if state is not None else assumed_starts
        self._failures = state.failures if state is not None else 0

    @property
    def is_lost(self) -> bool:
        """Whether the tool must not be started again: a worker has died in it, perhaps too often."""
        tries = self._starts - self._failures
        return self._starts > 0 and (not self._tool.repeatable or tries >= self._call.max_tries)

    async def start(self, arguments: BaseModel, context: ToolContext, reports: ToolReports) -> str:
        """The output of the tool, which is started now.

        Raises:
            NotConnectedError: it lacks a credential.
            ToolError: its failure, for the model.
            ApplicationError: `ToolTryFailed`: it is to be started again. `HandedOver`.
        """
        call, tool = self._call, self._tool
        assert tool.run is not None  # noqa: S101  # whoever starts it has looked
        checkpoint(ToolState(starts=self._starts + 1, failures=self._failures))
        try:
            async with reports.showing(), asyncio.timeout(call.timeout or None) as limit:
                return self._redact(await tool.run(arguments, context))
        except asyncio.CancelledError:
            if activity.is_worker_shutdown() and tool.repeatable and not stop_requested():
                checkpoint(ToolState(starts=self._starts, failures=self._failures))
                raise handed_over() from None
            raise
        except NotConnectedError:
            raise
        except ToolError as error:
            raise ToolError(self._redact(str(error))) from None
        except Exception as error:
            if limit.expired():
                raise ToolError(prompts.TOOL_TIMED_OUT.format(name=call.name, seconds=call.timeout)) from error
            # The model deals with every exception of a tool; a turn must not fail by one.
            # Its text may hold secrets, so it goes to the log only; a tool tells the model something by a ToolError.
            reference = new_reference()
            log.error("tool %s failed, reference %s\n%s", call.name, reference, self._redact(format_exc()))
            if self._failures < call.retries:
                checkpoint(ToolState(starts=self._starts + 1, failures=self._failures + 1))
                raise await self._retry(reports, reference) from None
            raise ToolError(f"{call.name} failed by an unexpected error. Reference: {reference}.") from None
        finally:
            context.ended.set()

    async def _retry(self, reports: ToolReports, reference: str) -> ApplicationError:
        """The failure by which Temporal starts a tool again after a wait, without a slot of the worker meanwhile."""
        delay = min(RETRY_PAUSE_S * RETRY_PAUSE_FACTOR**self._failures, RETRY_PAUSE_MAX_S)
        delay *= random.uniform(0.75, 1.25)  # noqa: S311  # not a secret
        await reports.show(ToolProgress(text=f"failed, reference {reference}; tried again in {delay:.1f} s"), last=True)
        text = f"The tool failed and is started again. Reference: {reference}."
        return ApplicationError(text, type=TOOL_RETRY, next_retry_delay=timedelta(seconds=delay))
