"""A small OpenAI-compatible server on `transformers`, for small checkpoints where vLLM is not installed.

It serves chat and plain completions with log-probabilities, seeds and the usual sampling; what would change an answer
and is not known here (tools, penalties, streaming, ...) is refused by name. Requests that wait are decoded together, in
rounds. (`transformers serve`, as of 5.23, refuses log-probabilities, and its seed is one for the whole process.)

models    what is served: the model, and a copy for each adapter      rounds   requests that wait, decoded together
decoding  tokens from a batch of requests, each with its own sampling      api      the bodies of requests and answers
"""
