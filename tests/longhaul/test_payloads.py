"""How payloads are written, and which codecs a setting can name."""

from collections.abc import Sequence

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import PayloadCodec
from temporalio.exceptions import ApplicationError

from longhaul.contracts import TurnLimits
from longhaul.payloads import PayloadConverter, data_converter
from longhaul.settings import SettingsError


class Reversing(PayloadCodec):
    """A codec that anybody can undo."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload(metadata={"encoding": b"reversed"}, data=one.SerializeToString()[::-1]) for one in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(one.data[::-1]) for one in payloads]


made = Reversing()
something = 5


def make() -> PayloadCodec:
    return Reversing()


def fail() -> PayloadCodec:
    raise KeyError("CODEC_KEY")


def test_all_payload_converters_of_a_process_share_their_type_adapters() -> None:
    one, other = PayloadConverter(), PayloadConverter()
    payload = one.to_payload(TurnLimits())
    assert one.from_payload(payload, TurnLimits) == TurnLimits()
    assert one.converters[b"json/plain"] is other.converters[b"json/plain"]


@pytest.mark.parametrize("name", ["Reversing", "made", "make"])
async def test_a_codec_encodes_values_and_failures(name: str) -> None:
    """It may be named as a class, as an object, or as a function that makes one."""
    converter, failure = data_converter(f"{__name__}:{name}"), Failure()
    [payload] = await converter.encode([TurnLimits(max_rounds=17)])
    assert b"max_rounds" not in payload.data
    assert await converter.decode([payload], [TurnLimits]) == [TurnLimits(max_rounds=17)]
    await converter.encode_failure(ApplicationError("something failed"), failure)
    assert b"something failed" not in failure.SerializeToString()
    assert "something failed" in str(await converter.decode_failure(failure))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("longhaul.payloads", "write it as `module:name`"),
        ("nothing.there:codec", "nothing.there cannot be imported"),
        (f"{__name__}:missing", "has no 'missing'"),
        (f"{__name__}:something", "it must be a `temporalio.converter.PayloadCodec`"),
        (f"{__name__}:TurnLimits", "it must be a `temporalio.converter.PayloadCodec`"),
        (f"{__name__}:fail", "it cannot be made: KeyError: 'CODEC_KEY'"),
    ],
)
def test_a_wrong_name_is_one_clear_line(name: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        data_converter(name)
    assert str(caught.value).startswith(f"LONGHAUL_PAYLOAD_CODEC={name!r} is not allowed: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
