"""Pydantic AI's agent on Temporal: a workflow for each turn; the library makes model calls and tools activities.

The client reads the answer's events from the workflow's stream, which is the library's way to stream.
"""

import asyncio
import os
from uuid import uuid4

from common import MODEL, QUESTION, serve
from pydantic_ai import Agent, AgentRunResultEvent
from pydantic_ai.durable_exec.temporal import AgentEventStream, AgentPlugin, PydanticAIPlugin, TemporalDurability
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = f"pydantic-ai-{uuid4()}"
DURABILITY = TemporalDurability(event_stream_topic="events")
provider = OpenAIProvider(base_url=os.environ["OPENAI_BASE_URL"], api_key="offline")
agent = Agent(
    OpenAIChatModel(MODEL, provider=provider), name="copilot", instructions="Help.", capabilities=[DURABILITY]
)


@agent.tool_plain
async def calculator(expression: str) -> str:
    """Calculate."""
    return "42"


@workflow.defn
class Turn:
    @workflow.init
    def __init__(self, question: str) -> None:
        self.events = AgentEventStream()

    @workflow.run
    async def run(self, question: str) -> str:
        async with self.events:
            return (await agent.run(question)).output


async def main() -> None:
    durability = TemporalDurability.from_agent(agent)
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"], plugins=[PydanticAIPlugin()])
    async with Worker(client, task_queue=QUEUE, workflows=[Turn], plugins=[AgentPlugin(agent)]):

        async def turn() -> str:
            handle = await client.start_workflow(Turn.run, QUESTION, id=str(uuid4()), task_queue=QUEUE)
            answer = ""
            async with durability.stream_agent_events(client, handle) as events:
                async for event in events:
                    if isinstance(event, AgentRunResultEvent):
                        answer = event.result.output
            return answer

        await serve(turn)


if __name__ == "__main__":
    asyncio.run(main())
