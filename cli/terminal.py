"""The screen of `longhaul chat`: a line to type on, what streams above it, and the commands."""

import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.formatted_text import ANSI
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout
from rich.console import Console
from rich.markup import escape

from cli import CommandError
from cli.chat import LastSession
from cli.client import CommandClient, RefusedError
from cli.conversation import as_json, as_markdown, cost_of, tree_of, whole
from cli.send import Renderer
from cli.stack.state import write_whole
from longhaul_client import Event

HELP = """/session [ID]   show this session, or go to another one
/sessions       the newest sessions
/new            begin a new session
/cancel         stop the turn (as Ctrl-C)
/allow          allow the tool call that waits for you; `/allow session`: this tool in the whole session
/deny [WHY]     do not allow it; WHY is told the model
/model [WORD…]  for the next messages: standard or advanced, fast or thinking; alone: what holds now
/tree           this session and its sub-sessions
/usage          what this session has cost
/save FILE      write the conversation to FILE (.json: rows as JSON, else Markdown)
/help           these lines
/quit           leave (as Ctrl-D, or Ctrl-C twice); a running turn goes on"""
COMMANDS = re.findall(r"^/\w+", HELP, re.MULTILINE)
CHOICES = {
    "standard": ("tier", "standard"),
    "advanced": ("tier", "advanced"),
    "fast": ("mode", "fast"),
    "thinking": ("mode", "extended_thinking"),
}
LAST_MESSAGES = 6  # shown when a session is taken up again
LEAVE_WITHIN_S = 2.0  # between the two Ctrl-C
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class LiveLines:
    """A text file for Rich that prints whole lines. The line that is still being written is shown above the prompt."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self.partial = ""
        self._on_change = on_change

    def write(self, text: str) -> int:
        """Take text, and print the lines that it completes."""
        *lines, self.partial = (self.partial + text).split("\n")
        width = max(20, shutil.get_terminal_size().columns - 1)
        while len(_ESCAPES.sub("", self.partial)) > width and (cut := self.partial.rfind(" ", 0, width)) > 0:
            lines.append(self.partial[:cut])
            self.partial = self.partial[cut + 1 :]
        for line in lines:
            sys.stdout.write(f"{line}\n")  # prompt_toolkit prints it above the prompt
        self._on_change()
        return len(text)

    def flush(self) -> None:
        """Whole lines are printed at once; the rest waits for its end."""


class Chat:
    """One terminal, one session at a time, and the thread that follows its turn."""

    def __init__(self, client: CommandClient, last: LastSession) -> None:
        self._client = client
        self._last = last
        self._session = ""
        self._choice: dict[str, str] = {}
        self._prompt: PromptSession[str] = PromptSession(
            history=InMemoryHistory(), completer=WordCompleter(COMMANDS, sentence=True), complete_while_typing=False
        )
        self._lines = LiveLines(self._redraw)
        self._console = Console(file=self._lines, highlight=False, force_terminal=True, width=10_000)  # type: ignore[arg-type]
        self._show = Renderer(self._console)
        self._follower: threading.Thread | None = None
        self._interrupted = 0.0
        self._printing = threading.RLock()  # the follower prints too

    @property
    def _busy(self) -> bool:
        return self._follower is not None and self._follower.is_alive()

    def _redraw(self) -> None:
        if self._prompt.app.is_running:
            self._prompt.app.invalidate()

    def _message(self) -> ANSI:
        above = f"{self._lines.partial}\n" if self._lines.partial else ""
        return ANSI(f"{above}{'⏳' if self._busy else '›'} ")

    def run(self, session: str, *, asked_for: bool) -> None:
        """Read lines until the person leaves.

        Raises:
            CommandError: the API cannot be reached, or the session that was asked for is not there.
        """
        try:
            self._go_to(session or self._client.create_session())
        except RefusedError as error:
            if asked_for or error.status != 404:
                raise
            self._go_to(self._client.create_session())  # the last session has been deleted
        with patch_stdout(raw=True):
            self._note("/help lists the commands")
            while self._one_line():
                pass
        sys.stdout.write("the turn goes on; `longhaul chat` finds it again\n" if self._busy else "")

    def _one_line(self) -> bool:
        """Read a line and act on it. False: the person leaves."""
        try:
            text = self._prompt.prompt(self._message, refresh_interval=0.5).strip()
        except EOFError:
            return False
        except KeyboardInterrupt:
            return self._interrupt()
        try:
            return self._command(text) if text.startswith("/") else self._say(text)
        except (CommandError, OSError) as error:
            self._note(f"not done: {error}")
            return True

    def _interrupt(self) -> bool:
        again = time.monotonic() - self._interrupted < LEAVE_WITHIN_S
        self._interrupted = time.monotonic()
        if again:
            return False
        if self._busy:
            self._note("stopping the turn; Ctrl-C again leaves")
            self._in_background(self._stop)
        else:
            self._note("Ctrl-C again leaves")
        return True

    def _note(self, text: str) -> None:
        with self._printing:
            self._show.note(text)

    def _say(self, text: str) -> bool:
        if not text:
            return True
        if not self._busy:
            self._start(self._client.send(self._session, text, self._choice))
            return True
        waiting = self._waiting()
        if waiting is not None and waiting["kind"] == "question":
            self._client.post(f"/approvals/{waiting['id']}", {"answer": text})
            return True
        taken = self._client.post(f"/sessions/{self._session}/messages", {"message": text, **self._choice})
        self._note("(it joins the turn that is running)")
        if taken["disposition"] == "started":  # the turn ended in this moment
            if self._follower is not None:
                self._follower.join()
            self._start(self._client.resume(self._session))
        return True

    def _waiting(self) -> dict[str, Any] | None:
        """The call of this session that has waited longest for this person."""
        waiting: list[dict[str, Any]] = self._client.get("/approvals", session_id=self._session, limit=1)["data"]
        return waiting[0] if waiting else None

    def _decide(self, decision: dict[str, str]) -> None:
        if (waiting := self._waiting()) is None:
            self._note("nothing waits for you here")
            return
        self._client.post(f"/approvals/{waiting['id']}", decision)

    def _start(self, events: Iterator[Event]) -> None:
        self._follower = self._in_background(lambda: self._show_events(events))

    def _in_background(self, work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except CommandError as error:
                self._note(f"not done: {error}")
            finally:
                self._redraw()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _show_events(self, events: Iterator[Event]) -> None:
        session = self._session
        for event in events:
            if session != self._session:
                return
            with self._printing:
                self._show.show(event)
        with self._printing:
            self._show.end_line()

    def _stop(self) -> None:
        if not self._client.post(f"/sessions/{self._session}/cancel")["cancelled"]:
            self._note("nothing runs")

    def _go_to(self, session: str) -> None:
        """Show the end of a session, and follow the turn that runs in it."""
        page = self._client.get(f"/sessions/{session}", limit=50)
        self._session = session
        self._last.write(session)
        self._note(f"session {session}  {page['title'] or ''}")
        active = page["active_turn"]
        said = [
            row
            for row in page["messages"]
            if row["role"] in ("user", "assistant")
            and row["content"]
            and (not active or row["turn_id"] != active["turn_id"])
        ]
        for row in said[-LAST_MESSAGES:]:
            if row["role"] == "user":
                self._console.print(f"[bold]› {escape(row['content'])}[/bold]", soft_wrap=True)
            else:
                self._show.whole_text(row["content"])
        if active:
            self._note("a turn is running here:")
            self._start(self._client.resume(session))

    def _choose(self, words: list[str]) -> None:
        """Set the tier and the mode of the messages from now on."""
        unknown = [word for word in words if word not in CHOICES]
        if unknown:
            raise CommandError(f"{unknown[0]} is none of {', '.join(CHOICES)}")
        self._choice.update(CHOICES[word] for word in words)
        chosen = [word for word, (name, value) in CHOICES.items() if self._choice.get(name) == value]
        self._note(f"next messages: {', '.join(chosen) or 'as the session was'}")

    def _command(self, text: str) -> bool:
        name, _, argument = text.partition(" ")
        argument = argument.strip()
        match name:
            case "/quit" | "/exit":
                return False
            case "/help":
                self._console.print(HELP, markup=False)
            case "/new":
                self._go_to(self._client.create_session())
            case "/session" if argument:
                self._go_to(argument)
            case "/session":
                self._note(f"session {self._session}")
            case "/sessions":
                for each in self._client.get("/sessions", limit=20)["sessions"]:
                    here = "*" if each["id"] == self._session else " "
                    self._console.print(f"{here} {each['id']}  {each['title'] or '(no title yet)'}", markup=False)
            case "/cancel":
                self._stop()
            case "/allow" if argument in ("", "session"):
                self._decide({"decision": "allow", "scope": argument or "call"})
            case "/allow":
                self._note("/allow, or /allow session")
            case "/deny":
                self._decide({"decision": "deny", "reason": argument})
            case "/model":
                self._choose(argument.split())
            case "/tree":
                self._console.print(tree_of(self._client.get(f"/sessions/{self._session}/tree")))
            case "/usage":
                usage = self._client.get(f"/sessions/{self._session}/tree")["total_usage"]
                self._console.print(f"{cost_of(usage)}, with all sub-sessions", markup=False)
            case "/save" if argument:
                path = Path(argument).expanduser()
                session = whole(self._client, self._session)
                write_whole(path, as_json(session) if path.suffix == ".json" else as_markdown(session))
                self._note(f"written to {path.absolute()}")
            case "/save":
                self._note("/save needs the name of a file")
            case _:
                self._note(f"there is no command {name}; /help lists them")
        return True
