"""What a failed model call means: whether it is tried again, and when."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import openai
import pytest

from longhaul.errors import StreamBrokenError
from longhaul.llm.failures import ModelFailure, _retry_after, backoff, classify, context_refusal, retry_delay
from longhaul.settings import Settings, load_settings
from longhaul.tools.registry import defect_of_arguments

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC)
REQUEST = httpx2.Request("POST", "http://model/v1/chat/completions")


def status_error(
    status: int,
    headers: dict[str, str] | None = None,
    body: object = None,
    kind: type[openai.APIStatusError] | None = None,
) -> openai.APIStatusError:
    response = httpx2.Response(status, headers=headers, request=REQUEST)
    return (kind or openai.APIStatusError)("failed", response=response, body=body)


@pytest.mark.parametrize("status", range(400, 600))
def test_every_status(status: int) -> None:
    assert classify(status_error(status)).retryable == (status in (408, 409, 429) or status >= 500)


@pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 500, 503])
@pytest.mark.parametrize(("header", "retryable"), [("true", True), ("false", False)])
def test_the_endpoint_has_the_last_word(status: int, header: str, retryable: bool) -> None:
    assert classify(status_error(status, {"X-Should-Retry": header})).retryable is retryable


@pytest.mark.parametrize("odd", ["", "maybe", "0"])
def test_other_words_change_nothing(odd: str) -> None:
    assert classify(status_error(429, {"x-should-retry": odd})).retryable
    assert not classify(status_error(400, {"x-should-retry": odd})).retryable


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (openai.APITimeoutError(request=REQUEST), True),
        (openai.APIConnectionError(request=REQUEST), True),
        (StreamBrokenError("The stream ended."), True),
        (openai.APIResponseValidationError(httpx2.Response(200, request=REQUEST), None), False),
        (openai.OpenAIError("no key"), False),
    ],
)
def test_faults_without_a_status(error: openai.OpenAIError | StreamBrokenError, retryable: bool) -> None:
    failure = classify(error)
    assert (failure.retryable, failure.retry_after) == (retryable, None)
    assert failure.text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"message": "Slow down."}, "Slow down."),
        ({"message": ""}, "Too Many Requests"),
        ("x", "Too Many Requests"),
        (None, "Too Many Requests"),
        ({"message": "x" * 999}, "x" * 300),
    ],
)
def test_the_text_names_the_status_and_the_detail_the_reason(body: object, expected: str) -> None:
    failure = classify(status_error(429, body=body))
    assert (failure.text, failure.detail) == ("The model endpoint answered with status 429.", expected)


def http_date(seconds: float) -> str:
    return format_datetime(NOON + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7),
        ({"retry-after-ms": "-1", "retry-after": "7"}, 7),
        ({"retry-after": http_date(20)}, 20),
        ({"retry-after": http_date(-20)}, 0),
        ({"retry-after": "Tue, 05 May 2026 14:00:09 +0200"}, 9),
        ({"retry-after": "Tue, 05 May 2026 12:00:09 -0000"}, 9),
        ({"retry-after": "Tue, 05 May 2026 12:00:09 +9999"}, None),
        ({"retry-after": "Tue, 05 May 99999 12:00:09 GMT"}, None),
        ({"retry-after": "tomorrow"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "\x00"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert (
        _retry_after(headers, NOON) == pytest.approx(seconds)
        if seconds is not None
        else _retry_after(headers, NOON) is None
    )


def test_retry_after_is_read_from_the_answer() -> None:
    assert classify(status_error(503, {"Retry-After": "3"})).retry_after == 3


@pytest.fixture
def settings() -> Settings:
    return load_settings(model_backoff_base=0.5, model_backoff_factor=2, model_backoff_max=30)


@pytest.mark.parametrize(("tries", "grown"), [(1, 0.5), (2, 1), (3, 2), (4, 4), (6, 16), (7, 30), (5000, 30)])
def test_backoff_doubles_with_jitter_up_to_the_cap(settings: Settings, tries: int, grown: float) -> None:
    found = [backoff(settings, tries, None) for _ in range(200)]
    assert min(found) >= grown * 0.75
    assert max(found) <= min(grown * 1.25, 30)
    assert len(set(found)) > 20


@pytest.mark.parametrize(("asked", "seconds"), [(0.0, 0.0), (7.0, 7.0), (30.0, 30.0), (3600.0, 30.0)])
def test_the_endpoints_wish_counts_up_to_the_cap(settings: Settings, asked: float, seconds: float) -> None:
    assert {backoff(settings, tries, asked) for tries in (1, 5)} == {seconds}


@pytest.mark.parametrize("good", ["", " ", "{}", '{"a": 1}', ' {"a": [1, {}]} '])
def test_good_arguments(good: str) -> None:
    assert defect_of_arguments(good) is None


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ("{", "valid JSON"),
        ('{"a": 1', "valid JSON"),
        ("{'a': 1}", "valid JSON"),
        ("[" * 100_000, "valid JSON"),
        ('{"a": NaN}', "valid JSON"),
        ("[1]", "JSON object"),
        ('"x"', "JSON object"),
        ("null", "JSON object"),
    ],
)
def test_defects_are_named_in_one_line(bad: str, named: str) -> None:
    found = defect_of_arguments(bad)
    assert found is not None
    assert named in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("retryable", "failing_for", "retried"),
    [(True, 0, True), (True, 9.0, True), (True, 9.9, False), (True, 1000, False), (False, 0, False)],
)
def test_retries_end_by_time(retryable: bool, failing_for: float, retried: bool) -> None:
    """Also a long wait that the endpoint asks for never leads beyond the end."""
    settings = load_settings(model_retry_seconds=10, model_backoff_base=0.5)
    failure = ModelFailure(retryable=retryable, text="")
    assert (retry_delay(settings, failure, 1, failing_for, settings.model_retry_seconds) is not None) == retried
    assert retry_delay(settings, ModelFailure(retryable=True, text="", retry_after=11), 1, 0, 10) is None
    assert retry_delay(settings, failure, 1, 0, 0) is None


def said(message: str, **more: object) -> dict[str, object]:
    return {"message": message, **more}


@pytest.mark.parametrize(
    ("error", "window", "counted"),
    [
        (  # OpenAI
            said(
                "This model's maximum context length is 128000 tokens. However, your messages resulted in "
                "204308 tokens. Please reduce the length of the messages.",
                type="invalid_request_error",
                param="messages",
                code="context_length_exceeded",
            ),
            128_000,
            204_308,
        ),
        (  # OpenAI, newer
            said(
                "Your input exceeds the context window of this model. Please adjust your input and try again.",
                code="context_length_exceeded",
            ),
            None,
            None,
        ),
        (  # OpenAI, one text
            said(
                "Invalid 'messages[1].content': string too long. Expected a string with maximum length 10485760, but "
                "got a string with length 12000000 instead.",
                code="string_above_max_length",
            ),
            None,
            None,
        ),
        (said("prompt is too long: 215000 tokens > 200000 maximum", type="invalid_request_error"), 200_000, 215_000),
        (  # Anthropic, with the answer
            said(
                "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease input length or "
                "`max_tokens` and try again"
            ),
            200_000,
            178_959,
        ),
        (  # OpenRouter
            said(
                "This endpoint's maximum context length is 131072 tokens. However, you requested about 138956 tokens "
                "(7884 of text input, 131072 in the output). Please reduce the length of either one, or use the "
                '"middle-out" transform to compress your prompt automatically.',
                code=400,
                metadata={"provider_name": None},
            ),
            131_072,
            138_956,
        ),
        (  # OpenRouter, what the provider said
            said(
                "Provider returned error",
                code=400,
                metadata={"raw": '{"type":"error","error":{"message":"prompt is too long: 9 tokens > 8 maximum"}}'},
            ),
            8,
            9,
        ),
        (  # vLLM
            said(
                "This model's maximum context length is 16384 tokens. However, you requested 122946 tokens (112946 in "
                "the messages, 10000 in the completion). Please reduce the length of the messages or completion.",
                object="error",
                code=400,
            ),
            16_384,
            122_946,
        ),
        (  # vLLM, newer
            said(
                "'max_tokens' or 'max_completion_tokens' is too large: 2000. This model's maximum context length is "
                "4096 tokens and your request has 2104 input tokens (2000 > 4096 - 2104)."
            ),
            4096,
            2104,
        ),
        (said("The decoder prompt (length 35247) is longer than the maximum model length of 1000."), 1000, 35_247),
        (said("Input prompt (35247 tokens) is too long and exceeds limit of 1000"), 1000, 35_247),
        (said("max_tokens must be at least 1, got -186.", type="BadRequestError"), None, None),
        (  # llama.cpp
            said(
                "the request exceeds the available context size. try increasing the context size or enable "
                "context shift",
                code=400,
                type="exceed_context_size_error",
                n_prompt_tokens=14429,
                n_ctx=8192,
            ),
            8192,
            14_429,
        ),
        (said("Input is too long for requested model."), None, None),  # Bedrock
        (  # Gemini
            said("The input token count (1196265) exceeds the maximum number of tokens allowed (1048575)."),
            1_048_575,
            1_196_265,
        ),
    ],
)
def test_a_request_that_is_too_long_is_recognised(error: object, window: int | None, counted: int | None) -> None:
    refusal = context_refusal(error)
    assert refusal is not None
    assert (refusal.window, refusal.counted) == (window, counted)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (said("Rate limit reached: too many tokens, prompt is too long for this minute"), 429),
        (said("Invalid value for 'messages[3].role'."), 400),
        (said("Unsupported parameter: 'max_tokens' is not supported with this model."), 400),
        (said("The server is overloaded."), 503),
        (None, 500),
        ("<html>Bad gateway</html>", 502),
    ],
)
def test_other_refusals_say_nothing_of_the_window(error: object, status: int) -> None:
    assert context_refusal(error, status) is None


def test_a_body_that_a_proxy_refuses_as_too_large_is_cut_too() -> None:
    assert context_refusal("<html>413 Request Entity Too Large</html>", 413) is not None
