"""Is a server's refusal a context that is full? Told by codes and by the wordings of the servers in use.

Read in the releases themselves: vLLM 0.11 to 0.33, SGLang 0.5; from their documents and issues: TGI, llama.cpp, Ollama,
TensorRT-LLM, and the OpenAI, Anthropic, Gemini, Mistral, Cohere, Bedrock and xAI styles that gateways speak.
"""

import re

# The fields `code` and `type` of an error, in any of those styles.
CODES = {
    "context_length_exceeded", "context_window_exceeded", "exceed_context_size_error", "exceed_context_size",
    "model_max_prompt_tokens_exceeded", "max_context_length_exceeded", "prompt_too_long",
}  # fmt: skip

_CONTEXT = r"(?:context[ _-]?(?:length|size|window|limit)|maximum model length|max_model_len|max_seq_len|max_input_len)"
_FULL = re.compile(
    "|".join(
        (
            *CODES,
            "ContextWindowExceeded",
            r"maximum (?:context|prompt) length",  # OpenAI, vLLM, SGLang, OpenRouter, xAI, Mistral
            r"(?:longer than|exceed(?:s|ed|ing)?|too large for|greater than|larger than|overflow\w*)"
            rf"\W+(?:\w+\W+){{0,6}}?{_CONTEXT}",
            rf"{_CONTEXT}\W+(?:\w+\W+){{0,4}}?(?:exceed|overflow|is only|reached|was reached|is full)",
            r"exceeds the maximum (?:number of tokens allowed|allowed length)",  # Gemini, SGLang
            r"exceeds the KV memory budget",  # SGLang
            r"input token count\W+(?:\w+\W+){0,3}?exceeds",
            r"max_tokens must be at least 1, got -",  # vLLM, when nothing is left to generate
            r"(?:prompt|input) is too long",  # Anthropic, Fireworks, Bedrock
            r"inputs`? (?:tokens \+ `?max_new_tokens`?|must have less than)",  # TGI
            r"too many tokens: ?(?:total|the)|number of tokens in the prompt cannot exceed",  # Cohere
            r"tokens in request more than max tokens allowed|range of input length should be",  # gateways
            r"reduce the length of the (?:messages|input|prompt)",
        )
    ),
    re.IGNORECASE,
)
# A refusal of what may be generated, whatever the prompt is.
_OUTPUT = re.compile(
    r"max_(?:completion_|output_|new_)?tokens\W*=?\W*\d+\W*cannot be greater than"  # vLLM from 0.16
    r"|supports at most \d+ (?:completion|output) tokens"  # OpenAI, SGLang
    r"|maximum allowed number of output tokens"  # Anthropic
    r"|(?<!\+ )(?<!\+ `)max_(?:completion_|output_|new_)?tokens\W+(?:must|should|has to|cannot|can't) (?:be )?"
    r"(?:<=|less|at most|lower|below|exceed)",
    re.IGNORECASE,
)
# The size that a refusal states.
_SIZES = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r">\W*(\d{2,})",
        r"must be <=\W*(\d{2,})",
        rf"(?:{_CONTEXT}|maximum (?:context|prompt) length|maximum allowed length)\W+(?:\w+\W+){{0,3}}?=?(\d{{2,}})",
        r"(?:allowed|limit)\W+(\d{2,})",
        r"\bn_ctx\W+(\d{2,})",
        r"at most (\d{2,})",
    )
)


def names_overflow(text: str) -> bool:
    """Does the refusal `text` say that prompt, or prompt and reply together, do not fit the context?"""
    return bool(_FULL.search(text))


def names_max_tokens(text: str) -> bool:
    """Does it refuse the number of tokens to generate, so that every request will be refused?"""
    return bool(_OUTPUT.search(text))


def stated_size(text: str) -> int | None:
    """The context, in tokens, that a refusal states, where it states one."""
    return next((int(found[1]) for pattern in _SIZES if (found := pattern.search(text))), None)
