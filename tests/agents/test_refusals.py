"""Whose fault a refused call is: the wordings of the servers in use, token counts where words fail, wrong settings."""

import logging

import pytest

from aem_harness.agents.build import build, endpoint_policy
from aem_harness.agents.policy import ContextOverflow, EndpointPolicy, Retry, Sampling
from aem_harness.harness.errors import ConfigError, PolicyFault
from aem_harness.harness.overflow import names_max_tokens, names_overflow, stated_size
from tests.agents.model_server import Handler, chat, model_server, say

FIRST = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
LATER = [*FIRST, {"role": "assistant", "content": "a"}, {"role": "user", "content": "o"}]
QUICK = Retry(attempts=2, first=0.001, cap=0.002, seconds=60)

# Wordings of a full context, with the size that they state.
FULL = {
    "vLLM 0.11, prompt": (
        "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. "
        "Please reduce the length of the input messages.",
        4096,
    ),
    "vLLM 0.11, prompt and reply": (
        "'max_tokens' or 'max_completion_tokens' is too large: 400. This model's maximum context length is "
        "4096 tokens and your request has 4000 input tokens (400 > 4096 - 4000).",
        4096,
    ),
    "vLLM 0.11, engine": (
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096.",
        4096,
    ),
    "vLLM, nothing left": (
        "max_tokens must be at least 1, got -186.",
        None,
    ),
    "vLLM 0.17, tokens": (
        "You passed 4090 input tokens and requested 400 output tokens. However, the model's context length is"
        " only 4096 tokens, resulting in a maximum input length of 3696 tokens. Please reduce the length of "
        "the input prompt.",
        4096,
    ),
    "vLLM 0.17, characters": (
        "You passed 90000 input characters and requested 400 output tokens. However, the model's context "
        "length is only 4096 tokens, resulting in a maximum input length of 3696 tokens (at most 29568 "
        "characters).",
        4096,
    ),
    "vLLM 0.18": (
        "This model's maximum context length is 4096 tokens. However, you requested 400 output tokens and "
        "your prompt contains 4000 input tokens, for a total of 4400 tokens.",
        4096,
    ),
    "vLLM 0.33": (
        "This model's maximum context length is 4096 tokens. However, your prompt contains at least 4097 "
        "input tokens, which exceeds this limit even without any output tokens. (parameter=input_tokens, "
        "value=4097)",
        4096,
    ),
    "vLLM responses": (
        "The engine prompt length 5000 exceeds the max_model_len 4096. Please reduce prompt.",
        4096,
    ),
    "SGLang, input": (
        "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
        4096,
    ),
    "SGLang, total": (
        "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a "
        "total of 5000 tokens: 4600 tokens from the input messages and 400 tokens for the completion.",
        4096,
    ),
    "SGLang, scheduler": (
        "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens).",
        4090,
    ),
    "TGI, total": (
        "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` "
        "tokens and 400 `max_new_tokens`",
        4096,
    ),
    "TGI, input": (
        "Input validation error: `inputs` must have less than 4095 tokens. Given: 5000",
        None,
    ),
    "llama.cpp": (
        "the request exceeds the available context size. try increasing the context size",
        None,
    ),
    "llama.cpp, new": (
        "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
        4096,
    ),
    "llama-cpp-python": (
        "Requested tokens (5000) exceed context window of 4096",
        4096,
    ),
    "Ollama": (
        "the input length exceeds the context length",
        None,
    ),
    "OpenAI": (
        "This model's maximum context length is 4096 tokens. However, your messages resulted in 5000 tokens. "
        "Please reduce the length of the messages.",
        4096,
    ),
    "OpenAI, newer": (
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        None,
    ),
    "OpenRouter": (
        "This endpoint's maximum context length is 4096 tokens. However, you requested about 5000 tokens",
        4096,
    ),
    "Anthropic, prompt": (
        "prompt is too long: 5000 tokens > 4096 maximum",
        4096,
    ),
    "Anthropic, both": (
        "input length and `max_tokens` exceed context limit: 4000 + 400 > 4096, decrease input length",
        4096,
    ),
    "Gemini": (
        "The input token count (5000) exceeds the maximum number of tokens allowed (4096).",
        4096,
    ),
    "xAI": (
        "This model's maximum prompt length is 4096 but the request contains 5000 tokens.",
        4096,
    ),
    "Mistral": (
        "Prompt contains 5000 tokens, too large for model with 4096 maximum context length",
        None,
    ),
    "Cohere": (
        "too many tokens: total number of tokens in the prompt cannot exceed 4096 - received 5000",
        None,
    ),
    "Bedrock": (
        "Input is too long for requested model.",
        None,
    ),
    "LiteLLM": (
        "litellm.ContextWindowExceededError: AnthropicError - boom",
        None,
    ),
}
NOT_FULL = (
    "temperature must be non-negative",
    "Rate limit reached for requests: 30000 tokens per min. Limit 30000, Used 29000, Requested 2000.",
    "Request Entity Too Large",
    "unknown field `max_model_len`",
    "tool_choice is not supported; start the server with --enable-auto-tool-choice",
    "CUDA out of memory",
)
TOO_MANY = (
    "max_completion_tokens=9000cannot be greater than max_model_len=max_total_tokens=4096. Please request fewer",
    "max_tokens=9000 cannot be greater than max_model_len=4096. Please request fewer output tokens.",
    "max_tokens is too large: 9000. This model supports at most 4096 completion tokens, whereas you provided 9000.",
    "max_completion_tokens is too large: 9000.This model supports at most 4096 completion tokens.",
    "max_tokens: 9000 > 4096, which is the maximum allowed number of output tokens for this model",
)


def refuse(message, status=400, **error):
    def answer(handler: Handler, request):
        handler.send_json({"error": {"message": message, **error}}, status)

    return answer


def call(answer, messages=LATER, **sampling):
    with (
        model_server(answer) as server,
        EndpointPolicy("tiny", [server.url], Sampling(**sampling), retry=QUICK) as policy,
    ):
        return policy.complete(messages, seed=0)


def serving(monkeypatch, *, size=None, count=None, more_with_tools=0):
    """Every server of the test states its context, and counts tokens as told."""

    def get(handler):
        about = {"id": "tiny", "object": "model"} | ({"max_model_len": size} if size else {})
        handler.send_json({"object": "list", "data": [about]})

    inner = Handler.do_POST

    def post(handler):
        if handler.path != "/tokenize":
            inner(handler)
            return
        body = handler.rfile.read(int(handler.headers["content-length"]))
        if count is None:
            handler.send_json({"error": "no such page"}, 404)
        else:
            handler.send_json({"count": count + (more_with_tools if b'"tools"' in body else 0)})

    monkeypatch.setattr(Handler, "do_GET", get)
    monkeypatch.setattr(Handler, "do_POST", post)


@pytest.mark.parametrize("server", FULL)
def test_every_wording_of_a_full_context_is_known_with_the_size_it_states(server):
    message, size = FULL[server]
    assert names_overflow(message)
    assert not names_max_tokens(message)
    if size:
        assert stated_size(message) == size


@pytest.mark.parametrize("message", NOT_FULL)
def test_other_refusals_are_not_taken_for_a_full_context(message):
    assert not names_overflow(message)
    assert not names_max_tokens(message)


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_conversation_that_no_longer_fits_is_an_end_whatever_the_status(status):
    with pytest.raises(ContextOverflow, match="4000 input tokens"):
        call(refuse(FULL["vLLM 0.11, prompt and reply"][0], status), max_tokens=400)


@pytest.mark.parametrize(
    "error",
    [{"code": "context_length_exceeded"}, {"type": "exceed_context_size_error"}, {"code": "CONTEXT_LENGTH_EXCEEDED"}],
)
def test_a_code_says_it_where_the_words_do_not(error):
    with pytest.raises(ContextOverflow):
        call(refuse("no", **error))


def test_a_full_context_in_a_body_with_status_200_is_one_too():
    with pytest.raises(ContextOverflow):
        call(lambda handler, request: handler.send_json({"error": {"message": FULL["OpenRouter"][0], "code": 400}}))


@pytest.mark.parametrize("server", ["vLLM 0.17, tokens", "TGI, total", "llama.cpp"])
def test_a_refusal_of_the_first_call_is_a_wrong_setting_and_no_end(server):
    with pytest.raises(ConfigError, match=r"first prompt.*longer context"):
        call(refuse(FULL[server][0]), FIRST)


@pytest.mark.parametrize("message", TOO_MANY)
def test_every_wording_of_too_many_max_tokens_is_known(message):
    assert names_max_tokens(message)
    assert stated_size(message) == 4096


@pytest.mark.parametrize("message", TOO_MANY[:2])
def test_a_refusal_of_max_tokens_is_a_wrong_setting_at_any_call(message):
    with pytest.raises(ConfigError, match=r"max_tokens 9000 does not fit.*-c sampling.max_tokens"):
        call(refuse(message), max_tokens=9000)


def test_max_tokens_that_alone_fill_the_context_are_a_wrong_setting():
    with pytest.raises(ConfigError, match="context of 4096 tokens"):
        call(refuse(FULL["SGLang, total"][0]), max_tokens=4096)


def test_where_words_fail_the_token_counts_tell(monkeypatch):
    serving(monkeypatch, size=4096, count=4000)
    with pytest.raises(ContextOverflow, match="4000 tokens of prompt, a context of 4096"):
        call(refuse("Zu viele Wörter"), max_tokens=400)
    with pytest.raises(PolicyFault, match="Zu viele"):
        call(refuse("Zu viele Wörter"), max_tokens=50)
    with pytest.raises(ConfigError, match="first prompt"):
        call(refuse("Zu viele Wörter"), FIRST, max_tokens=400)


def test_a_run_does_not_start_with_more_max_tokens_than_context(monkeypatch):
    serving(monkeypatch, size=4096)
    with model_server(say("hello")) as server:
        with pytest.raises(ConfigError, match="max_tokens 5000 does not fit the server's context of 4096"):
            endpoint_policy("", [server.url], {"max_tokens": 5000})
        endpoint_policy("", [server.url], {"max_tokens": 400}).close()


def test_an_error_with_status_200_is_quoted():
    with pytest.raises(PolicyFault, match="the server answered 200 with an error: upstream is overloaded"):
        call(lambda handler, request: handler.send_json({"error": {"message": "upstream is\n overloaded"}}))


def test_a_reply_that_names_another_model_is_remarked_on(caplog):
    def answer(handler, request):
        handler.send_json(chat("hi") | {"model": "another"})

    with caplog.at_level(logging.WARNING):
        completion = call(answer)
    assert completion.anomalies == ("the reply names the model another, not tiny",)
    assert "answers as another" in caplog.text
    dated = call(lambda handler, request: handler.send_json(chat("hi") | {"model": "tiny-2026-01-01"}))
    assert dated.anomalies == ()


def tool_agent(**options):
    with model_server(say("hello")) as server, EndpointPolicy("tiny", [server.url], retry=QUICK) as policy:
        return build("bash", policy=policy, options=options)


def test_tools_that_the_chat_template_ignores_are_refused_before_the_run(monkeypatch):
    serving(monkeypatch, count=20)
    assert tool_agent().tools == (), "text actions need no tools"
    with pytest.raises(ConfigError, match="chat template ignores `tools`"):
        tool_agent(prompts="bash-tool-1")
    serving(monkeypatch, count=20, more_with_tools=60)
    assert tool_agent(prompts="bash-tool-1").tools
    serving(monkeypatch)
    assert tool_agent(prompts="bash-tool-1").tools, "a server that cannot count tokens is taken at its word"
