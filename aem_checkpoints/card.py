"""A checkpoint's card: everything about a policy that a person wants to read, diff and commit, in one YAML file."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, field_validator, model_validator

from aem_harness.harness.errors import ConfigError, validating
from aem_harness.harness.types import Record

CARD = "card.yaml"
NAME = re.compile(r"[A-Za-z0-9][\w.+-]*(@\d+)?")


class Method(Record):
    """How the policy was trained. `kind` decides on which side of a comparison it usually stands."""

    kind: Literal["baseline", "aem", "other"] = "other"
    base: str = Field("", description="grpo, dapo, gspo, grpo++, supervised, ...")
    parameters: Mapping[str, Any] = Field(
        default_factory=dict, description="hyper-parameters, lam and min_range among them"
    )


class Training(Record):
    """Where it came from: the run, the step within it, the seeds, and a certificate of what it was trained on.

    `certificate` says how many rows, their digest, and which sets that are measured on they are disjoint from.
    `changed` is the share of the stored weights that differ from those that training began with.
    """

    run: str = ""
    step: int | None = Field(None, ge=0)
    seeds: tuple[int, ...] = ()
    config: Mapping[str, Any] = Field(default_factory=dict)
    certificate: Mapping[str, Any] = Field(default_factory=dict)
    changed: float | None = Field(None, ge=0, le=1)


class Serving(Record):
    """What `vllm serve` is told beside the weights. `flags` are its own, without the leading dashes."""

    max_model_len: int | None = Field(None, gt=0)
    tensor_parallel_size: int | None = Field(None, gt=0)
    dtype: str | None = None
    tool_call_parser: str | None = None
    chat_template: str | None = Field(None, description="file, relative to the card; else the tokenizer's own")
    flags: Mapping[str, str | int | float | bool] = Field(default_factory=dict)


class Scaffold(Record):
    """The agent this policy was made for, used when a run names none."""

    agent: str = "bash"
    options: Mapping[str, Any] = Field(default_factory=dict)


class Card(Record):
    """One checkpoint. Weights are at `path` (relative to the card) or at `hub` and `revision`; exactly one of them.

    A LoRA checkpoint (`weights: lora`) is an adapter that needs `base_model`, a card's name, hub id or folder.
    `digests` maps files of `path` to "sha256:...": the identity that `aem checkpoints verify` checks.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    name: str
    weights: Literal["full", "lora"] = "full"
    path: str = ""
    hub: str = ""
    revision: str = ""
    base_model: str = ""
    parent: str = ""
    licence: str = ""
    description: str = ""
    method: Method = Method()
    training: Training = Training()
    serving: Serving = Serving()
    scaffold: Scaffold = Scaffold()
    sampling: Mapping[str, Any] = Field(default_factory=dict)
    digests: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _plain(cls, name: str) -> str:
        if not NAME.fullmatch(name):
            raise ValueError("letters, digits, . _ + -, optionally ending in @STEP")
        return name

    @model_validator(mode="after")
    def _one_place(self) -> "Card":
        if bool(self.path) == bool(self.hub):
            raise ValueError("give either path or hub")
        if self.weights == "lora" and not self.base_model:
            raise ValueError("a LoRA adapter needs base_model")
        return self

    @property
    def series(self) -> str:
        """The name without its step: `deepswe-aem` of `deepswe-aem@150`."""
        return self.name.partition("@")[0]

    @property
    def step(self) -> int | None:
        """The step in the name, else the training step."""
        named = self.name.partition("@")[2]
        return int(named) if named else self.training.step

    def to_yaml(self) -> str:
        """As written to disk: fields in the order of this class, defaults left out."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=110)
        # PyYAML leaves a few characters unescaped that it then reads as line ends (U+0085).
        return text if yaml.safe_load(text) == values else yaml.safe_dump(values, sort_keys=False, width=110)


def read_card(path: Path) -> Card:
    """The card in a file; ConfigError names the file and the field that is wrong."""
    from aem_harness.harness.config import read_yaml

    return make_card(read_yaml(path), str(path))


def make_card(values: Mapping[str, Any], source: str) -> Card:
    """A card from plain values; ConfigError names `source` and the field that is wrong."""
    with validating(ConfigError, source):
        return Card(**values)


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """`(dotted key, left, right)` for every value in which two nested mappings differ; None where one lacks it."""
    ours, theirs = dict(_flat(left)), dict(_flat(right))
    for key in dict.fromkeys([*ours, *theirs]):
        if ours.get(key) != theirs.get(key):
            yield key, ours.get(key), theirs.get(key)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
