"""Stream an answer as it is written. Kill the API or the worker meanwhile: the program does not notice."""

import asyncio
import os

from longhaul_client import AsyncLonghaul, ReasoningDelta, TextDelta, ToolCalled, ToolReturned, Voided


async def main() -> None:
    async with AsyncLonghaul(os.environ.get("LONGHAUL_API_URL", "http://127.0.0.1:8700")) as longhaul:
        session = await longhaul.sessions.create(title="An example")
        async for event in session.stream("What is 12 * (3 + 4), and what time is it?"):
            match event:
                case TextDelta(text=text) | ReasoningDelta(text=text):
                    print(text, end="", flush=True)
                case ToolCalled(tool=tool, arguments=arguments):
                    print(f"[{tool} {arguments}]")
                case ToolReturned(output=output):
                    print(f"[gave {output}]")
                case Voided():
                    print("\n[a model call is made again; what it had said does not hold]")
        print()


asyncio.run(main())
