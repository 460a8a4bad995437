"""Temporal's agent harness with the OpenAI Agents SDK: a workflow for each agent, the tool as an activity.

The client reads the answer's events from the workflow's stream, which is the harness's way to stream.
"""

import asyncio
import os
from datetime import timedelta
from uuid import uuid4

from common import MODEL, QUESTION, serve
from openai import AsyncOpenAI
from pydantic import BaseModel
from temporalio import workflow
from temporalio.client import Client
from temporalio.contrib.workflow_streams import WorkflowStream
from temporalio.worker import Worker
from temporalio.workflow import ActivityConfig

with workflow.unsafe.imports_passed_through():  # workflow and plugin must see the same classes
    from agents import Agent, OpenAIProvider, Runner
    from temporal_agent_harness.ai_sdks.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
    from temporal_agent_harness.ai_sdks.openai_agents_harness import (
        as_openai_agent_tools,
        harness_observer_factory,
        stream_to_provider,
    )
    from temporal_agent_harness.harness import agent
    from temporal_agent_harness.harness.agent_client import AgentClient
    from temporal_agent_harness.harness.agent_protocol import AgentConfig, ToolApprovalPolicy
    from temporal_agent_harness.harness.agent_workflow import AgentWorkflowRunner
    from temporal_agent_harness.plugin import AgentHarnessPlugin

QUEUE = f"agent-harness-{uuid4()}"


class Question(BaseModel):
    """What a person asks."""

    text: str


class Reply(BaseModel):
    """What the agent answers."""

    text: str


@agent.activity_tool_defn(
    activity_config=ActivityConfig(start_to_close_timeout=timedelta(seconds=30)), inherently_safe=True
)
async def calculator(expression: str) -> str:
    """Calculate."""
    return "42"


@agent.defn
class Copilot:
    @agent.init
    def __init__(self, config: AgentConfig) -> None:
        self._runner = AgentWorkflowRunner(
            config, stream=WorkflowStream(), approval_policy_default=ToolApprovalPolicy.allow_inherently_safe()
        )

    @agent.accepts
    async def ask(self, question: Question) -> Reply:
        """Answer a question."""
        tools = as_openai_agent_tools(self._runner, [calculator])
        copilot = Agent(name="copilot", instructions="Help.", model=MODEL, tools=tools)
        result = Runner.run_streamed(copilot, question.text, context=self._runner)
        async for _ in result.stream_events():
            pass
        return Reply(text=str(result.final_output))


async def main() -> None:
    client_of_model = AsyncOpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key="offline")
    provider = OpenAIProvider(openai_client=client_of_model, use_responses=False)
    model_params = ModelActivityParameters(
        start_to_close_timeout=timedelta(seconds=60),
        heartbeat_timeout=timedelta(seconds=15),
        stream_to_provider=stream_to_provider,
    )
    sdk = OpenAIAgentsPlugin(
        model_params=model_params, model_provider=provider, observer_factory=harness_observer_factory
    )
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"], plugins=[sdk, AgentHarnessPlugin(tools=[calculator])])
    free: list[AgentClient] = []  # an agent takes message after message; each conversation at a time has its own
    async with Worker(client, task_queue=QUEUE, workflows=[Copilot]):

        async def turn() -> str:
            if free:
                copilot = free.pop()
            else:
                copilot = AgentClient(client, str(uuid4()))
                await client.start_workflow("Copilot", AgentConfig(), id=copilot.workflow_id, task_queue=QUEUE)
            events = await copilot.send_message("ask", {"text": QUESTION}, on_item=lambda output, _offset: str(output))
            heard = [event async for event in events]
            free.append(copilot)
            return "\n".join(heard)

        await serve(turn)


if __name__ == "__main__":
    asyncio.run(main())
