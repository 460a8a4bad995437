"""Takes `<think>…</think>` and `<thinking>…</thinking>` out of a model's text, also when a tag is cut by chunks."""

OPENING = ("<think>", "<thinking>")
CLOSING = ("</think>", "</thinking>")


class ThinkSplitter:
    """Feed it text as it comes; it says which of it is text and which reasoning."""

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False

    def feed(self, delta: str) -> list[tuple[str, str]]:
        """`("text" | "reasoning", piece)` for all that is certain by now."""
        self._held += delta
        pieces: list[tuple[str, str]] = []
        while self._held:
            tags = CLOSING if self._thinking else OPENING
            at, tag = _first(self._held, tags)
            if tag:
                self._emit(pieces, self._held[:at])
                self._held = self._held[at + len(tag) :]
                self._thinking = not self._thinking
                continue
            keep = _possible_tag(self._held, tags)
            self._emit(pieces, self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            break
        return pieces

    def end(self) -> list[tuple[str, str]]:
        """What was held back because it might have become a tag."""
        pieces: list[tuple[str, str]] = []
        self._emit(pieces, self._held)
        self._held = ""
        return pieces

    def _emit(self, pieces: list[tuple[str, str]], text: str) -> None:
        if text:
            pieces.append(("reasoning" if self._thinking else "text", text))


def _first(text: str, tags: tuple[str, ...]) -> tuple[int, str]:
    found = [(text.find(tag), tag) for tag in tags if tag in text]
    return min(found) if found else (-1, "")


def _possible_tag(text: str, tags: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a tag."""
    at = text.rfind("<")
    rest = text[at:] if at >= 0 else ""
    return len(rest) if rest and any(tag.startswith(rest) for tag in tags) else 0
