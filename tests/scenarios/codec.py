"""A payload codec as an operator would write it, and a tool that says too much in its error."""

import os
from collections.abc import Sequence

from cryptography.fernet import Fernet
from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from longhaul.tools import Registry, Tool, ToolContext

KEY = "LONGHAUL_TEST_CODEC_KEY"


class Encrypting(PayloadCodec):
    """Each payload becomes one that only the key's owners can read."""

    def __init__(self) -> None:
        self._fernet = Fernet(os.environ[KEY])

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        encrypted = [self._fernet.encrypt(payload.SerializeToString()) for payload in payloads]
        return [Payload(metadata={"encoding": b"binary/encrypted"}, data=data) for data in encrypted]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(self._fernet.decrypt(payload.data)) for payload in payloads]


class Words(BaseModel):
    words: str


async def crash(given: Words, _: ToolContext) -> str:
    raise RuntimeError(given.words)


def registry() -> Registry:
    """For `LONGHAUL_TOOLS`."""
    return Registry([Tool("crash", "Crash.", Words, crash)])
