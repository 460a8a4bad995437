"""How what goes to Temporal is written: Pydantic models as JSON and, if a payload codec is set, encoded."""

import dataclasses
from functools import cache
from typing import Any

from pydantic_core import SchemaSerializer
from pydantic_core.core_schema import any_schema
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticJSONPlainPayloadConverter, PydanticPayloadConverter
from temporalio.converter import (
    CompositePayloadConverter,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
)

from longhaul.settings import named_object, not_allowed

_serializer = SchemaSerializer(any_schema())


class _WithoutDefaults(PydanticJSONPlainPayloadConverter):
    """Leaves out fields that hold their default, so that a history shows and stores only what differs.

    The reader of a payload fills them in again. So a default of a contract never changes: in histories, it is a value.
    """

    def to_payload(self, value: Any) -> Payload:
        data = _serializer.to_json(value, exclude_defaults=True)
        return Payload(metadata={"encoding": self.encoding.encode()}, data=data)


_converters = tuple(
    _WithoutDefaults() if isinstance(converter, PydanticJSONPlainPayloadConverter) else converter
    for converter in PydanticPayloadConverter().converters.values()
)


class PayloadConverter(CompositePayloadConverter):
    """Pydantic's payload converter with one cache of type adapters per process.

    The SDK makes a converter for each workflow run and activity. Pydantic's own then builds its type adapters anew.
    """

    def __init__(self) -> None:
        super().__init__(*_converters)


@cache
def data_converter(payload_codec: str = "") -> DataConverter:
    """The data converter of every client, with the codec that `payload_codec` names as `module:name`, if any.

    It names a `temporalio.converter.PayloadCodec`, its class, or a function that returns one. With a codec, the texts
    of failures are encoded too. Names, workflow ids and search attributes stay readable.

    Raises:
        SettingsError: there is no codec of that name, or it cannot be made.
    """
    plain = DataConverter(payload_converter_class=PayloadConverter)
    if not payload_codec:
        return plain
    codec = named_object("payload_codec", payload_codec)
    if callable(codec) and not isinstance(codec, PayloadCodec):
        try:
            codec = codec()
        except Exception as error:
            reason = f"it cannot be made: {type(error).__name__}: {error}"
            raise not_allowed("payload_codec", payload_codec, reason) from error
    if not isinstance(codec, PayloadCodec):
        reason = "it must be a `temporalio.converter.PayloadCodec`, its class, or a function that returns one"
        raise not_allowed("payload_codec", payload_codec, reason)
    return dataclasses.replace(
        plain, payload_codec=codec, failure_converter_class=DefaultFailureConverterWithEncodedAttributes
    )
