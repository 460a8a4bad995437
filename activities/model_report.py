"""What the workflow is told of a model's answer: ids, counts and how each tool call is run; no text."""

from collections.abc import Collection
from typing import Any

from activities.answers import StoredAnswer
from longhaul.contracts import CallModel, ModelAnswer, ParkKind, Scope, ToolCall
from longhaul.db.conversation import cut_off_call
from longhaul.tools import Registry, Tool
from longhaul.tools.approval import ApprovalRules
from longhaul.tools.ask_user import ask_user
from longhaul.tools.registry import allowed, defect_of_arguments
from longhaul.tools.workflow_tools import for_workflow

#: The name that histories and progress have for tools that do not exist.
UNKNOWN_TOOL = "unknown_tool"


class AnswerReport:
    """Reports the answers of a worker's model calls."""

    def __init__(self, tools: Registry, approvals: ApprovalRules) -> None:
        self._tools = tools
        self._approvals = approvals

    def of(
        self,
        call: CallModel,
        answer: StoredAnswer,
        client_tools: Collection[str],
        fallback: str,
        *,
        published: bool,
    ) -> ModelAnswer:
        """What the workflow decides on; the answer's texts stay in the database."""
        cut_off = cut_off_call(answer.finish_reason, answer.tool_calls)
        return ModelAnswer(
            message_id=answer.message_id,
            finish_reason=answer.finish_reason,
            has_text=bool(answer.text.strip()),
            tool_calls=[
                self.call(made, call.turn.user_id, call.scope, client_tools, cut_off=made["id"] == cut_off)
                for made in answer.tool_calls
            ],
            usage=answer.usage,
            published=published,
            turn_ended_at=answer.turn_ended_at,
            compaction_due=answer.compaction_due,
            fallback=fallback,
        )

    def _parks(self, tool: Tool, arguments: str, user_id: str, scope: Scope) -> ParkKind | None:
        """What a call waits for before it is run. A refused call and one of a dry run do not wait."""
        if not allowed(tool.name, scope) or tool.only_said(scope):
            return None
        if tool.name == ask_user.name:
            return ParkKind.QUESTION if tool.is_valid(arguments) else None
        return ParkKind.APPROVAL if self._approvals.need(tool, arguments, user_id) else None

    def call(
        self, made: dict[str, Any], user_id: str, scope: Scope, client_tools: Collection[str] = (), *, cut_off: bool
    ) -> ToolCall:
        """A tool call, in the OpenAI shape, as the workflow needs it. `run_tool` refuses one that was cut off, and one
        whose arguments are no object: no client gets those."""
        name, arguments = made["function"]["name"], made["function"]["arguments"]
        if name in client_tools:
            parks = ParkKind.CLIENT_TOOL if not cut_off and defect_of_arguments(arguments) is None else None
            return ToolCall(tool_call_id=made["id"], name=name, parks=parks)
        tool = self._tools.find(name)
        # A name that the model made up is text of its own, which histories do not hold; `run_tool` finds it in the row.
        call = ToolCall(tool_call_id=made["id"], name=name if tool is not None else UNKNOWN_TOOL)
        if cut_off or tool is None:
            return call
        options = {"quick": tool.quick, "timeout": tool.timeout, "retries": tool.retries, "task_queue": tool.task_queue}
        call = call.model_copy(update={**options, "parks": self._parks(tool, arguments, user_id, scope)})
        return for_workflow(call, arguments)
