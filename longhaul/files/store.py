"""Where uploaded files are kept: a folder that all processes share, or a bucket."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import cached_property

from obstore.exceptions import BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from longhaul.errors import NotFoundError, UnavailableError
from longhaul.settings import Settings, not_allowed

CHUNK_BYTES = 1 << 18


class FileStore:
    """Files by id. An id is written once, and its content never changes."""

    def __init__(self, settings: Settings) -> None:
        """The store that the settings name.

        Raises:
            SettingsError: they name none.
        """
        self._folder = settings.workspaces_folder / ".files"
        self._bucket: ObjectStore | None = None
        if url := settings.files_url:
            try:
                self._bucket = from_url(url)
            except (BaseError, ValueError) as error:
                raise not_allowed("files_url", url, str(error).partition("\n")[0]) from None

    @cached_property
    def _store(self) -> ObjectStore:
        """The folder is made with its first use."""
        return self._bucket or LocalStore(self._folder.absolute(), mkdir=True)

    async def put(self, file_id: str, data: bytes) -> None:
        """Keep a file.

        Raises:
            UnavailableError: the store cannot be reached, or it is full.
        """
        with _explained(file_id):
            await self._store.put_async(_key(file_id), data)

    async def read(self, file_id: str) -> bytes:
        """A whole file.

        Raises:
            NotFoundError: there is none.
            UnavailableError: the store cannot be reached.
        """
        with _explained(file_id):
            found = await self._store.get_async(_key(file_id))
            return bytes(await found.bytes_async())

    async def chunks(self, file_id: str) -> AsyncIterator[bytes]:
        """A file in pieces; raises as `read`, with the first piece."""
        with _explained(file_id):
            found = await self._store.get_async(_key(file_id))
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    async def remove(self, file_id: str) -> None:
        """Remove a file, if it is there.

        Raises:
            UnavailableError: the store cannot be reached.
        """
        try:
            with _explained(file_id):
                await self._store.delete_async(_key(file_id))
        except NotFoundError:
            return


def _key(file_id: str) -> str:
    """Folders of few files each: some file systems are slow with many in one."""
    return f"{file_id[:2]}/{file_id}"


@contextmanager
def _explained(file_id: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {file_id}.") from error
    except (BaseError, OSError) as error:
        raise UnavailableError("The store of files") from error
