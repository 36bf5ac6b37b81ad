"""Prompts as versioned data: the YAML files beside this one, or those of an installed mini-swe-agent.

A file's digest goes into `Agent.describe()`, so two runs under different wording never pass as comparable.
"""

import hashlib
from collections.abc import Mapping
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from aem_harness.harness.config import read_yaml
from aem_harness.harness.errors import ConfigError, validating
from aem_harness.harness.types import Record

# Names that are read from an installed mini-swe-agent (`pip install --no-deps` will do): its file, and how actions
# are written.
MINI_SWE_AGENT: dict[str, tuple[str, Literal["text", "tool"]]] = {
    "mini-swe-agent": ("config/benchmarks/swebench.yaml", "tool"),
    "mini-swe-agent-backticks": ("config/benchmarks/swebench_backticks.yaml", "text"),
}
MINI_FENCE = "mswea_bash_command"


class Prompts(Record):
    """Everything the bash agent says, and how it expects to be answered. Templates are Jinja2.

    `instance` sees task, repo, workdir, instance_id, steps and command_seconds; `observation` sees
    output.{output, returncode, exception_info}; `format_error` sees error, actions, finish_reason, has_tool_calls.
    `submission` says what is handed in: the output after the sentinel line, or the work tree's diff.
    """

    name: str
    version: str | int
    action: Literal["text", "tool"] = "text"
    fence: str = Field("bash", pattern=r"^[A-Za-z0-9_+-]+$")
    submission: Literal["output", "worktree"] = "worktree"
    env: Mapping[str, str] = Field(default_factory=dict)
    system: str
    instance: str
    observation: str
    format_error: str

    @classmethod
    def load(cls, name: str) -> Self:
        """By name (`bash-1`, `mini-swe-agent`, ...) or path (ours, or a mini-swe-agent configuration).

        ConfigError names what is wrong: an unknown name, a missing field, a template that cannot be rendered.
        """
        if name in MINI_SWE_AGENT:
            return cls._check(cls(**_from_mini_swe_agent(name)), name)
        shipped = resources.files("aem_harness.agents") / "prompts" / f"{name}.yaml"
        path = Path(str(shipped)) if shipped.is_file() else Path(name)
        if not path.is_file():
            choices = ", ".join([*shipped_names(), *MINI_SWE_AGENT])
            raise ConfigError(f"unknown prompts {name!r}: choose one of {choices}, or give the path of a YAML file")
        values = read_yaml(path)
        if "agent" in values:
            values = _translate(values, name=path.stem, version="file", action=_guess_action(values))
        with validating(ConfigError, str(path)):
            return cls._check(cls(**values), str(path))

    @classmethod
    def _check(cls, prompts: Self, source: str) -> Self:
        """Render every template once, so that a misspelt variable fails here and not in the middle of a run."""
        from jinja2 import TemplateError

        output = {"output": "x" * 20_000, "returncode": 0, "exception_info": ""}
        task = dict.fromkeys(("task", "repo", "workdir", "instance_id"), "x") | {"steps": 1, "command_seconds": 1}
        reply = {"error": "x", "actions": [], "finish_reason": "stop", "has_tool_calls": False}
        seen: dict[str, dict[str, Any]] = {
            "system": task,
            "instance": task,
            "observation": {"output": output},
            "format_error": reply,
        }
        for field, values in seen.items():
            try:
                prompts.render(field, **values)
            except TemplateError as error:
                raise ConfigError(f"{source}: template `{field}`: {error}") from None
        return prompts

    def render(self, field: str, **values: Any) -> str:
        return str(self._templates[field].render(**values))

    @property
    def digest(self) -> str:
        """First 12 hex digits of the SHA-256 of what the model and its shell get to see."""
        return hashlib.sha256(self.model_dump_json(exclude={"name", "version"}).encode()).hexdigest()[:12]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "version": self.version, "digest": self.digest}

    @cached_property
    def _templates(self) -> dict[str, Any]:
        # As mini-swe-agent 2.x renders: plain Jinja2, an undefined variable is an error, one trailing newline goes.
        from jinja2 import StrictUndefined, Template

        fields = ("system", "instance", "observation", "format_error")
        return {field: Template(getattr(self, field), undefined=StrictUndefined) for field in fields}


def shipped_names() -> list[str]:
    """The prompt files that come with the package, without `.yaml`."""
    folder = resources.files("aem_harness.agents") / "prompts"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def _from_mini_swe_agent(name: str) -> dict[str, Any]:
    # Found, not imported: importing minisweagent prints a banner, creates a folder and loads a .env file.
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import find_spec

    spec = find_spec("minisweagent")
    if spec is None or spec.origin is None:
        raise ConfigError(f"prompts {name!r} come with that package: pip install --no-deps mini-swe-agent==2.4.6")
    try:
        installed = version("mini-swe-agent")
    except PackageNotFoundError:
        installed = "unknown"
    file, action = MINI_SWE_AGENT[name]
    return _translate(read_yaml(Path(spec.origin).parent / file), name=name, version=installed, action=action)


def _guess_action(config: Mapping[str, Any]) -> Literal["text", "tool"]:
    return "text" if MINI_FENCE in str(config["agent"].get("system_template", "")) else "tool"


def _translate(
    config: Mapping[str, Any], *, name: str, version: str, action: Literal["text", "tool"]
) -> dict[str, Any]:
    """A mini-swe-agent 2.x configuration (agent, environment, model) in the fields of `Prompts`."""
    try:
        agent, model = config["agent"], config["model"]
        if "action_regex" in model:
            raise ConfigError(
                f"prompts {name!r}: action_regex is not supported; actions are fenced blocks or tool calls"
            )
        return {
            "name": name,
            "version": version,
            "action": action,
            "fence": MINI_FENCE,
            "submission": "output",
            "env": {key: str(value) for key, value in config.get("environment", {}).get("env", {}).items()},
            "system": agent["system_template"],
            "instance": agent["instance_template"],
            "observation": model["observation_template"],
            "format_error": model["format_error_template"],
        }
    except KeyError as error:
        raise ConfigError(f"prompts {name!r}: the mini-swe-agent configuration lacks {error.args[0]}") from None
