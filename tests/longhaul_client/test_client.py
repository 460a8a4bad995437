"""The Python client against the real product, with the API killed in the middle."""

import asyncio
from uuid import uuid4

import pytest

from longhaul_client import AsyncLonghaul, Finished, Joined, Longhaul, ProblemError, TextDelta, ToolReturned, Transcript
from testkit.checks import check_rows
from testkit.product import Product

PRODUCT = {"backend": "sqlite"}


async def test_a_tour(product: Product) -> None:
    async with AsyncLonghaul(product.url()) as longhaul:
        session = await longhaul.sessions.create(title="Numbers")
        answer = await session.ask("what is 17*23?")
        assert "391" in answer.text
        assert answer.tool_calls[0].output == "391"
        message_id = str(uuid4())
        sent = await session.send("hello", message_id=message_id)
        assert (await session.send("hello", message_id=message_id)).turn_id == sent.turn_id
        ended = await session.wait(sent.turn_id)
        assert (ended.status, await session.progress(sent.turn_id)) == ("completed", ended)
        assert [turn.turn_id for turn in await session.turns()] == [sent.turn_id, answer.turn_id]
        page = await session.page(limit=1)
        assert page.has_more_messages
        assert page.messages[0].turn_id == sent.turn_id
        assert (await session.rename("Sums")).title == "Sums"
        assert session.id in [found.id async for found in longhaul.sessions.list(page_size=1)]
        assert not (await session.cancel()).cancelled
        await session.delete()
        await session.delete()
        with pytest.raises(ProblemError, match="404"):
            await session.page()


async def test_a_killed_api_is_not_noticed(product: Product) -> None:
    api = product.apis[0]
    transcript = Transcript()
    async with AsyncLonghaul(product.url()) as longhaul:
        session = await longhaul.sessions.create()
        events = []
        async for event in session.stream("speak 60 [delay=20]"):
            events.append(event)
            transcript.add(event)
            if api.running and sum(isinstance(one, TextDelta) for one in events) == 3:
                product.kill(api)
                restart = asyncio.create_task(product.start_again(api))
        await restart
        page = await session.page()
    assert isinstance(events[-1], Finished)
    assert transcript.text == page.messages[-1].content
    await check_rows(product.database, sessions=[session.id])


async def test_a_follow_up_and_stop_without_asyncio(product: Product) -> None:
    def talk() -> tuple[Transcript, bool]:
        with Longhaul(product.url()) as longhaul:
            session = longhaul.sessions.create()
            first = session.send("speak 4000 [delay=20]")
            transcript = Transcript()
            for event in session.stream("and 2*3"):
                if isinstance(event, Joined):
                    assert event.turn_id == first.turn_id
                transcript.add(event)
                if transcript.text:
                    break
            return transcript, session.cancel().cancelled

    transcript, cancelled = await asyncio.to_thread(talk)
    assert transcript.text
    assert cancelled


async def test_tools_show_in_the_stream(product: Product) -> None:
    async with AsyncLonghaul(product.url()) as longhaul:
        session = await longhaul.sessions.create()
        outputs = [event.output async for event in session.stream("2*3") if isinstance(event, ToolReturned)]
    assert outputs == ["6"]
