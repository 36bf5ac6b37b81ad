"""What a run is: the settings that decide its outcomes, their digest, and how YAML and dotted overrides make one.

Only settings that can change an outcome are part of the digest. How many instances, how many seeds and how many
workers are not: a run may be extended, or continued on a larger machine, and stays the same run.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from aem_harness.harness.errors import ConfigError, DataError, validating
from aem_harness.harness.io import read_text
from aem_harness.harness.types import Record

# Settings that decide how far a run goes and no outcome: not in the digest.
UNCOUNTED = {"stop_alike", "outage_seconds"}
MOST_SECONDS = 2e6  # 23 days: sockets take little more


class Limits(Record, allow_inf_nan=False):
    """What one container may use. `disk` only where the engine's storage driver can."""

    cpus: float = Field(2.0, gt=0, le=1e6)
    memory: str = Field("4g", pattern=r"^\d+(\.\d+)?[kmgKMG]?[bB]?$")
    pids: int = Field(1024, gt=0, le=2**22)  # of Linux
    disk: str | None = None


class RunConfig(Record, allow_inf_nan=False):
    """The settings of one arm that can change the outcomes of its rollouts."""

    arm: str = Field(description="label of this side in comparisons (default: checkpoint or agent)", min_length=1)
    dataset: str = Field("sample", description="verified, lite, full, multilingual, sample, tiny, or a local file")
    agent: str = Field("bash", description="gold, empty, replay:NAME, bash, deepswe, command:..., module:attribute")
    agent_options: Mapping[str, Any] = Field(
        default_factory=dict, description="passed to the agent: limits, prompts, ..."
    )
    sampling: Mapping[str, Any] = Field(default_factory=dict, description="temperature, top_p, max_tokens, ...")
    checkpoint: str = Field("", description="registered checkpoint that is served, if any")
    limits: Limits = Limits()
    agent_network: bool = Field(False, description="give the agent's container a network")
    grade_timeout: float = Field(1800, gt=0, le=MOST_SECONDS, description="seconds the official eval script may take")
    infra_retries: int = Field(1, ge=0, description="how often a rollout lost to infrastructure is tried again at once")
    outage_seconds: float = Field(
        1800, ge=0, description="how long engine, server, registry or disk may be away before the run ends"
    )
    stop_alike: int = Field(
        12, ge=0, description="stop when the first so many end alike without having worked; 0: never"
    )

    @model_validator(mode="before")
    @classmethod
    def _label(cls, values: dict[str, Any]) -> dict[str, Any]:
        name = values.get("arm") or values.get("checkpoint") or values.get("agent") or "bash"
        return {**values, "arm": re.sub(r"[^\w.@+-]+", "-", str(name)).strip("-") or "arm"}

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of the canonical JSON."""
        canonical = json.dumps(self.model_dump(mode="json", exclude=UNCOUNTED), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        overrides: Iterable[str] = (),
        *,
        defaults: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> Self:
        """Merge defaults, a YAML file, dotted `key=value` overrides and keyword values (None: not given), in order."""
        merged: dict[str, Any] = {**(defaults or {}), **(read_yaml(path) if path else {})}
        for override in overrides:
            set_dotted(merged, override)
        merged.update({key: value for key, value in values.items() if value is not None})
        with validating(ConfigError, "run configuration", hint=f" (from {path})" if path else ""):
            return cls(**merged)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; ConfigError names the file otherwise."""
    import yaml

    try:
        loaded = yaml.safe_load(read_text(path))
    except DataError as error:
        raise ConfigError(str(error)) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(loaded, dict):
        raise ConfigError(f"{path} must hold a mapping of settings, not {type(loaded).__name__}")
    if key := _infinite(loaded):
        raise ConfigError(f"{path}: {key} is no finite number")
    return loaded


def set_dotted(settings: dict[str, Any], override: str) -> None:
    """Apply one `a.b=value` override in place; the value is read as YAML, so numbers and lists come out as such."""
    import yaml

    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value (for example limits.memory=8g)")
    *parents, last = key.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
        if not isinstance(settings, dict):
            raise ConfigError(f"override {override!r}: {parent} is not a group of settings")
    try:
        settings[last] = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as error:
        raise ConfigError(
            f"override {override!r}: the value is not valid YAML ({' '.join(str(error).split())})"
        ) from None
    if _infinite({key: settings[last]}):
        raise ConfigError(f"override {override!r}: the value is no finite number")


def _infinite(settings: Mapping[Any, Any]) -> str:
    """The dotted name of a setting that is no finite number, for which JSON, digests and servers have no word."""
    rest, seen = [("", settings)], set[int]()
    while rest:
        name, value = rest.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return name
        if isinstance(value, dict | list) and id(value) not in seen:  # YAML may hold a list in itself
            seen.add(id(value))
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            rest += [(f"{name}.{key}".removeprefix("."), one) for key, one in inner]
    return ""
