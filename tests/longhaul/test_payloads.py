"""How payloads are written, and which codecs a setting can name."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import PayloadCodec
from temporalio.exceptions import ApplicationError

import longhaul.contracts
from longhaul.contracts import TurnLimits
from longhaul.contracts.turn import Contract
from longhaul.payloads import PayloadConverter, data_converter
from longhaul.settings import SettingsError

DEFAULTS = Path(__file__).parents[1] / "data" / "contract_defaults.json"


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


def defaults() -> dict[str, dict[str, Any]]:
    """The defaults of all contracts' fields."""
    converter = PayloadConverter().converters[b"json/plain"]

    def read_back(value: object) -> Any:
        payload = converter.to_payload(value)
        assert payload is not None
        return json.loads(payload.data)

    contracts = [
        one for one in vars(longhaul.contracts).values() if isinstance(one, type) and issubclass(one, Contract)
    ]
    return {
        contract.__name__: {
            name: read_back(field.default)
            for name, field in contract.model_fields.items()
            if field.default is not PydanticUndefined
        }
        for contract in sorted(contracts, key=lambda contract: contract.__name__)
    }


def test_a_default_is_left_out_and_filled_in_again() -> None:
    converter = PayloadConverter()
    payload = converter.to_payload(TurnLimits(max_rounds=17, max_depth=3))
    assert json.loads(payload.data) == {"max_rounds": 17}
    assert converter.from_payload(payload, TurnLimits) == TurnLimits(max_rounds=17)
    assert json.loads(converter.to_payload({"a": None, "b": [0, ""]}).data) == {"a": None, "b": [0, ""]}


def test_a_default_of_a_contract_never_changes() -> None:
    """Payloads of running turns leave it out. Another default would be another value in their histories."""
    assert defaults() == json.loads(DEFAULTS.read_bytes()), "a new field is added to tests/data/contract_defaults.json"
