"""A message that joins the running turn, and Stop, which keeps what was said."""

import asyncio
import os

from longhaul_client import AsyncLonghaul


async def main() -> None:
    async with AsyncLonghaul(os.environ.get("LONGHAUL_API_URL", "http://127.0.0.1:8700")) as longhaul:
        session = await longhaul.sessions.create()
        first = await session.send("wait 1 s")
        second = await session.send("and what is 6*7?")
        print(f"the second message {'joins the turn' if second.turn_id == first.turn_id else 'starts a turn'}")
        await session.wait(second.turn_id)
        print((await session.page()).messages[-1].content)

        long = await session.send("speak 5000")
        stopped = await session.cancel()
        print(f"turn {long.turn_id} is {stopped.status}")


asyncio.run(main())
