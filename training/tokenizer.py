"""The tiny policies' tokenizer: a small byte-level BPE in Hugging Face form, with the chat template that they speak.

Every word, digit and operator of the tasks becomes one token; the fixed phrases of the shell are tokens of their own,
so a reply is some fifteen tokens long. A conversation is `<|role|>content<|end|>` for every message, and the policy
goes on after `<|assistant|>` until its `<|end|>`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

ROLES = ("system", "user", "assistant")
END, PAD = "<|end|>", "<|pad|>"
PHRASES = (
    "```bash\n", "\n```", "cat lib/", "sed -i 's/", "/' lib/", "python t.py ", "git checkout -q lib/",
    "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT", ".py", " is wrong: ", " gives ", ", want ", "all good\n", "exit 1\n",
    "def ", "return ", "if ", "for x in items:", "for i in ", "r.append(", "  # ", ":  # ",
    *(f" {operator} " for operator in ("+", "-", "=", "+=", "-=", ">", "<", ">=", "<=", "==", "!=", "and", "or")), ", ",
    "    ", "        ", "            ",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], *, vocabulary: int = 640) -> Any:
    """A `PreTrainedTokenizerFast` for the texts. Context length is the model's to say, not the tokenizer's."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" [a-z]{2,}|[A-Za-z]+|[0-9]| +|[<>=!+*-]=|[\s\S]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [f"<|{role}|>" for role in ROLES] + [END, PAD]
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in PHRASES])
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(PHRASES),
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


class Chat:
    """Conversations as token ids, piece by piece: what was said before never needs to be encoded again."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.end: int = tokenizer.convert_tokens_to_ids(END)
        self.pad: int = tokenizer.convert_tokens_to_ids(PAD)
        self._roles = {role: tokenizer.convert_tokens_to_ids(f"<|{role}|>") for role in ROLES}

    def text(self, content: str) -> list[int]:
        return list(self.tokenizer.encode(content, add_special_tokens=False))

    def message(self, role: str, content: str) -> list[int]:
        return [self._roles[role], *self.text(content), self.end]

    def prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """All messages and the opening of the policy's next reply."""
        return [i for m in messages for i in self.message(m["role"], m["content"])] + [self._roles["assistant"]]

    def answer(self, observation: str) -> list[int]:
        """What follows a reply that was closed by the end token: the observation, and the next opening."""
        return [*self.message("user", observation), self._roles["assistant"]]

    def reply(self, ids: Sequence[int]) -> str:
        """The text of sampled ids, as a server would return it: special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
