"""The OpenAI Agents SDK on Temporal's own plugin: a workflow for each turn, the tool as an activity.

The client reads the answer's events from the workflow's stream, which is the plugin's way to stream.
"""

import asyncio
import os
from datetime import timedelta
from uuid import uuid4

from agents import Agent, OpenAIProvider, Runner
from common import MODEL, QUESTION, serve
from openai import AsyncOpenAI
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.contrib.workflow_streams import WorkflowStream, WorkflowStreamClient
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.openai_agents.workflow import activity_as_tool
from temporalio.worker import Worker

TOPIC = "events"
QUEUE = f"openai-agents-{uuid4()}"


@activity.defn
async def calculator(expression: str) -> str:
    """Calculate."""
    return "42"


@workflow.defn
class Turn:
    @workflow.init
    def __init__(self, question: str) -> None:
        self.stream = WorkflowStream()

    @workflow.run
    async def run(self, question: str) -> str:
        tool = activity_as_tool(calculator, start_to_close_timeout=timedelta(seconds=30))
        agent = Agent(name="copilot", instructions="Help.", model=MODEL, tools=[tool])
        result = Runner.run_streamed(agent, question)
        async for _ in result.stream_events():
            pass
        return str(result.final_output)


async def main() -> None:
    client_of_model = AsyncOpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key="offline")
    provider = OpenAIProvider(openai_client=client_of_model, use_responses=False)
    model_params = ModelActivityParameters(
        start_to_close_timeout=timedelta(seconds=60), heartbeat_timeout=timedelta(seconds=15), streaming_topic=TOPIC
    )
    plugin = OpenAIAgentsPlugin(model_params=model_params, model_provider=provider)
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"], plugins=[plugin])
    async with Worker(client, task_queue=QUEUE, workflows=[Turn], activities=[calculator]):

        async def turn() -> str:
            handle = await client.start_workflow(Turn.run, QUESTION, id=str(uuid4()), task_queue=QUEUE)
            events = WorkflowStreamClient.create(client, handle.id).subscribe(TOPIC)
            parts = [item.data async for item in events]
            return "".join(part["delta"] for part in parts if part["type"] == "response.output_text.delta")

        await serve(turn)


if __name__ == "__main__":
    asyncio.run(main())
