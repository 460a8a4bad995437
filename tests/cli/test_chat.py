"""`longhaul chat` in a pseudo-terminal, against the real product."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import orjson
import pytest

from cli.stack.state import write_whole
from cli.terminal import LiveLines
from testkit.pool import MakeProduct
from testkit.product import Product
from testkit.wait import until

pytestmark = pytest.mark.backends("sqlite")  # the terminal knows nothing of the database
ROOT = Path(__file__).parents[2]
CTRL_C, CTRL_D = "\x03", "\x04"
SLOW = "speak 2000 [delay=20]"


class Terminal:
    """A `longhaul chat` in a pseudo-terminal of 100 columns."""

    def __init__(self, product: Product, home: Path, *arguments: str) -> None:
        self.master, self._slave = pty.openpty()
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self._argv = [sys.executable, "-P", "-m", "cli", "chat", "--api-url", product.url(), *arguments]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LONGHAUL_")}
        self._env = {**kept, "LONGHAUL_HOME": str(home), "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}
        self._output = ""

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            env=self._env,
            start_new_session=True,
        )
        os.close(self._slave)
        asyncio.get_running_loop().add_reader(self.master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.master, 65_536).decode(errors="replace")
        except OSError:  # the other side is closed
            data = ""
        if not data:
            asyncio.get_running_loop().remove_reader(self.master)
        if "\x1b[6n" in data:  # where is the cursor? A terminal answers.
            os.write(self.master, b"\x1b[1;1R")
        self._output += data

    @property
    def text(self) -> str:
        """All that was printed, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self._output)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def enter(self, text: str) -> None:
        self.type(f"{text}\r")

    async def shows(self, wanted: str, limit: float = 60) -> None:
        await until(
            lambda: re.search(wanted, self.text),
            what=f"{wanted!r} in the terminal, which shows {self.text[-800:]!r}",
            limit=limit,
        )

    async def ended(self) -> int:
        return await asyncio.wait_for(self.process.wait(), 30)

    async def close(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)


Open = Callable[..., Awaitable[Terminal]]


@pytest.fixture
async def open_chat(tmp_path: Path) -> AsyncIterator[Open]:
    terminals: list[Terminal] = []

    async def start(product: Product, *arguments: str) -> Terminal:
        terminal = Terminal(product, tmp_path / "home", *arguments)
        await terminal.start()
        terminals.append(terminal)
        await terminal.shows("/help lists the commands")
        return terminal

    yield start
    for terminal in terminals:
        await terminal.close()


async def test_a_message_is_answered_and_the_session_taken_up_again(product: Product, open_chat: Open) -> None:
    terminal = await open_chat(product)
    terminal.enter("What is 12 * (3 + 4)?")
    await terminal.shows(r"→ calculator")
    await terminal.shows(r"= 84")
    terminal.type(CTRL_D)
    assert await terminal.ended() == 0
    again = await open_chat(product)
    assert "= 84" in again.text
    again.enter("/usage")
    await again.shows(r"tokens")


async def test_what_is_typed_while_it_works_joins_the_turn(product: Product, open_chat: Open) -> None:
    session = await product.api.create_session()
    terminal = await open_chat(product, "--session", session)
    terminal.enter("speak 100 [delay=20]")
    await terminal.shows("w20 ")
    with product.servers.model.paused():  # the turn cannot end before the message has joined it
        terminal.enter("And 6 * 7?")
        await terminal.shows("it joins the turn")
    await terminal.shows("= 42")
    assert len(await product.api.turns(session)) == 1


async def test_ctrl_c_stops_the_turn_and_twice_leaves(product: Product, open_chat: Open) -> None:
    session = await product.api.create_session()
    terminal = await open_chat(product, "--session", session)
    terminal.enter(SLOW)
    await terminal.shows("w20 ")
    terminal.type(CTRL_C)
    await terminal.shows("stopped")
    assert (await product.api.turns(session))[0]["status"] == "cancelled"
    terminal.enter("What is 6 * 7?")
    await terminal.shows("= 42")

    async def left() -> bool:
        terminal.type(CTRL_C)
        await asyncio.sleep(0.3)
        return terminal.process.returncode is not None

    await until(left, what="two Ctrl-C end the chat")


async def test_a_running_turn_is_taken_up(product: Product, open_chat: Open) -> None:
    session = await product.api.create_session()
    await product.api.start(session, "wait 250 s")
    terminal = await open_chat(product, "--session", session)
    await terminal.shows("a turn is running here")
    await terminal.shows("→ wait")
    terminal.enter("/cancel")
    await terminal.shows("stopped")


async def test_the_api_is_killed_in_mid_answer(make_product: MakeProduct, open_chat: Open) -> None:
    product = await make_product()
    session = await product.api.create_session()
    terminal = await open_chat(product, "--session", session)
    terminal.enter("speak 150 [delay=20]")
    await terminal.shows("w20 ")
    product.kill(product.apis[0])
    await terminal.shows("connecting again")
    await product.start_again(product.apis[0])
    await terminal.shows("w150")
    assert len(await product.api.turns(session)) == 1


async def test_save_sessions_and_tree(product: Product, open_chat: Open, tmp_path: Path) -> None:
    session = await product.api.create_session()
    terminal = await open_chat(product, "--session", session)
    terminal.enter("delegate: what is 17 * 23?")
    await terminal.shows("391")
    await until(lambda: _ended(product, session), what="the turn's end")
    for name in ("talk.md", "talk.json"):
        terminal.enter(f"/save {tmp_path / name}")
        await terminal.shows(f"written to .*{name}")
    assert "## You\n\ndelegate: what is 17 * 23?" in (tmp_path / "talk.md").read_text(encoding="utf-8")
    saved = orjson.loads((tmp_path / "talk.json").read_bytes())
    assert [row["sequence"] for row in saved["messages"]] == list(range(len(saved["messages"])))
    terminal.enter("/model advanced thinking")
    await terminal.shows("next messages: advanced, thinking")
    terminal.enter("And 2 * 3?")
    await terminal.shows("= 6")
    assert (await product.api.turns(session))[0]["tier"] == "advanced"
    terminal.enter("/model huge")
    await terminal.shows("not done: huge is none of")
    terminal.enter("/tree")
    await terminal.shows(r"└── .*completed")
    terminal.enter("/sessions")
    await terminal.shows(rf"\* {session}")
    terminal.enter("/nonsense")
    await terminal.shows("there is no command /nonsense")
    terminal.enter("/session 00000000-0000-0000-0000-000000000000")
    await terminal.shows("not done: 404")


async def _ended(product: Product, session: str) -> bool:
    return bool((await product.api.turns(session))[0]["ended_at"])


def test_a_failed_save_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "talk.md"
    write_whole(file, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(file, "new \ud800")
    assert file.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["talk.md"]


def test_only_whole_lines_are_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "31")
    lines = LiveLines(lambda: None)
    for word in ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]:
        lines.write(f"{word} ")
    assert capsys.readouterr().out == "one two three four five six\n"
    assert lines.partial == "seven eight nine "
    lines.write("\n")
    assert capsys.readouterr().out == "seven eight nine \n"


async def test_a_question_is_answered_in_place(product: Product, open_chat: Open) -> None:
    """The line that is typed is the answer, and no message; then one is declined."""
    question = {"call": "ask_user", "arguments": {"question": "Which colour?", "choices": ["red", "blue"]}}
    terminal = await open_chat(product)
    terminal.enter("/allow")
    await terminal.shows("nothing waits for you here")
    terminal.enter(orjson.dumps({"script": [question]}).decode())
    await terminal.shows(r"\? Which colour\?\s+· red\s+· blue")
    terminal.enter("the green one")
    await terminal.shows(r"← ask_user the green one")
    await terminal.shows(r"ask_user: the green one\.")
    terminal.enter(orjson.dumps({"script": [{**question, "arguments": {"question": "Why?"}}]}).decode())
    await terminal.shows(r"\? Why\?\s+type your answer")
    terminal.enter("/deny no reason")
    await terminal.shows(r"← ask_user failed: .*no reason")
