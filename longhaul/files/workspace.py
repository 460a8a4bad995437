"""The folder of a session tree's files. No path, no link and no race leads out of it.

A shell of the session may change the folder at any moment, so a path is never checked first and opened by its name
later: its links are resolved, and then it is opened from the folder downwards, one name after the other, without
following links. Who puts a link in between gets an error.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

NAME_MAX_BYTES = 255
LISTED_MAX = 1_000
#: Files that are being written. They are not shown.
TEMPORARY = ".longhaul-"
COMPARED_BYTES = 1 << 20
LOCK_MAX_S, LOCK_PAUSE_S = 5.0, 0.005


class WorkspaceError(Exception):
    """A file operation is refused, or it failed; the text is written for people and models."""


class Entry(NamedTuple):
    """One entry of a folder."""

    name: str
    is_folder: bool
    bytes: int


class Workspace:
    """The files in one folder. `max_bytes` is what they may take together; 0: no limit.

    All methods block, and raise `WorkspaceError`.
    """

    def __init__(self, root: Path, max_bytes: int = 0) -> None:
        self.root = root
        self._max_bytes = max_bytes

    def entries(self, path: str) -> list[Entry]:
        """What is in a folder, by name; a workspace that nobody has written to yet is empty."""
        names = self._names(path)
        if not names and not self.root.is_dir():
            return []
        with _explained(path, "listed"), self._listing(path, names) as folder, os.scandir(folder) as found:
            listed = sorted((one for one in found if not one.name.startswith(TEMPORARY)), key=lambda one: one.name)
            return [
                Entry(one.name, _is_folder(one), one.stat(follow_symlinks=False).st_size) for one in listed[:LISTED_MAX]
            ]

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        """A file, open for reading."""
        names = self._names(path)
        if not names:
            raise WorkspaceError(f"{path!r} cannot be read: Is a directory.")
        with _explained(path, "read"), self._folder(names[:-1]) as folder:
            # Not blocking: a pipe would make this wait for a writer for ever.
            handle = os.open(names[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            with open(handle, "rb") as file:  # noqa: PTH123  # by its handle
                mode = os.fstat(handle).st_mode
                if stat.S_ISDIR(mode):
                    raise WorkspaceError(f"{path!r} cannot be read: Is a directory.")
                if not stat.S_ISREG(mode):
                    raise WorkspaceError(f"{path!r} cannot be read: it is a pipe or a device.")
                yield file

    def read(self, path: str, max_bytes: int) -> bytes:
        """A whole file of up to `max_bytes`."""
        with self.reading(path) as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise WorkspaceError(f"{path!r} is larger than {max_bytes} bytes.")
        return data

    def write(self, path: str, data: bytes) -> None:
        """Write a file in the place of the one before. A killed process leaves the old file or the new one."""
        names = self._names(path)
        if not names:
            raise WorkspaceError(f"{path!r} is a folder.")
        with _explained(path, "written"):
            self.root.mkdir(parents=True, exist_ok=True)
            with self._alone():
                self._check_room(path, names, len(data))
                self._put(path, names, data)

    def _put(self, path: str, names: tuple[str, ...], data: bytes) -> None:
        with self._folder(names[:-1], make=True) as folder:
            if _is_folder_in(folder, names[-1]):
                raise WorkspaceError(f"{path!r} is a folder.")
            temporary = TEMPORARY + secrets.token_hex(8)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644, dir_fd=folder)
            try:
                with open(handle, "wb") as file:  # noqa: PTH123
                    file.write(data)
                os.replace(temporary, names[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary, dir_fd=folder)
                raise

    def holds(self, path: str, data: bytes) -> bool | None:
        """Whether a file has exactly this content; None: there is no such file."""
        try:
            with self.reading(path) as file:
                if os.fstat(file.fileno()).st_size != len(data):
                    return False
                parts = iter(lambda: file.read(COMPARED_BYTES), b"")
                at = 0
                for part in parts:
                    if data[at : at + len(part)] != part:
                        return False
                    at += len(part)
                return True
        except WorkspaceError as error:
            if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                return None
            raise

    def bytes_used(self) -> int:
        """What all files take together."""
        return self._bytes_used(without=None)

    def _bytes_used(self, *, without: tuple[str, ...] | None) -> int:
        """The size of all files except one; links are counted themselves, not followed."""
        used = 0
        for folder, _, names in os.walk(self.root):
            within = Path(folder).relative_to(self.root).parts
            for name in names:
                with contextlib.suppress(FileNotFoundError):  # another call has replaced it
                    used += Path(folder, name).lstat().st_size if (*within, name) != without else 0
        return used

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other write, of this process or another one, come between the look at the quota and the new file.

        A file system without such locks, or a process that hangs with the lock, costs exactness and no write.
        """
        if not self._max_bytes:
            yield
            return
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            deadline = time.monotonic() + LOCK_MAX_S
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(LOCK_PAUSE_S)
                except OSError:
                    break
            yield
        finally:
            os.close(handle)  # which gives the lock back

    def _check_room(self, path: str, names: tuple[str, ...], needed: int) -> None:
        if self._max_bytes and (others := self._bytes_used(without=names)) + needed > self._max_bytes:
            raise WorkspaceError(
                f"{path!r} was not written: the workspace may hold {self._max_bytes} bytes, its other files take "
                f"{others}, and this one needs {needed}. Replace files by shorter ones."
            )

    def _names(self, path: str) -> tuple[str, ...]:
        """The names from the workspace down to a path, links followed."""
        root = self.root.resolve()
        if "\x00" in path:
            raise WorkspaceError("A path cannot contain a NUL character.")
        try:
            place = (root / path).resolve()
        except (OSError, RuntimeError) as error:  # circular links, names that are too long
            raise WorkspaceError(f"{path!r} cannot be resolved.") from error
        if not place.is_relative_to(root):
            raise WorkspaceError(f"{path!r} leads out of the workspace.")
        names = place.relative_to(root).parts
        if any(len(os.fsencode(name)) > NAME_MAX_BYTES for name in names):
            raise WorkspaceError(f"{path[:50]!r}… contains a name that is too long.")
        return names

    @contextmanager
    def _listing(self, path: str, names: tuple[str, ...]) -> Iterator[int]:
        try:
            with self._folder(names) as folder:
                yield folder
        except (FileNotFoundError, NotADirectoryError) as error:
            raise WorkspaceError(f"There is no folder {path!r}.") from error

    @contextmanager
    def _folder(self, names: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """A folder's handle; no link is followed on the way to it."""
        handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in names:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=handle)
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=handle)
                os.close(handle)
                handle = below
            yield handle
        finally:
            os.close(handle)


@contextmanager
def _explained(path: str, done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkspaceError(f"{path!r} cannot be {done}: {error.strerror}.") from error


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    """Links to folders are shown as folders, wherever they lead."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_folder_in(folder: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
