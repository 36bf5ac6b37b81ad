"""From the words of a run configuration to an agent: `bash`, `replay:NAME`, `command:...`, `module:attribute`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

from aem_harness.harness.errors import ConfigError, validating
from aem_harness.harness.run.thoughts import AGENTS, done_with
from aem_harness.harness.types import Agent, Policy, Record, Task

if TYPE_CHECKING:
    from aem_harness.agents.policy import EndpointPolicy

CHOICES = "gold, empty, replay:NAME_OR_FILE, bash, deepswe, command:PROGRAM ARGS, or module.path:attribute"

AgentOptions = TypeVar("AgentOptions", bound=Record)


def build(
    spec: str, *, options: Mapping[str, Any] | None = None, tasks: Sequence[Task] = (), policy: Policy | None = None
) -> Agent:
    """The agent that `spec` names. ConfigError, in one line naming the choices, when it names none.

    `options` are the agent's own (budget, prompts); `tasks` are needed by `gold`, `policy` by `bash` and `deepswe`.
    An entry point `module.path:attribute` is called with `policy` and `options`, and returns an Agent.
    """
    options = options or {}
    kind, separator, argument = spec.partition(":")
    match kind:
        case "gold" | "empty" if not separator:
            from aem_harness.agents.scripted import EmptyAgent, GoldAgent

            _no_options(kind, options)
            return EmptyAgent() if kind == "empty" else GoldAgent({task.instance_id: task.patch for task in tasks})
        case "replay" if argument:
            from aem_harness.agents.bash import BashOptions
            from aem_harness.agents.scripted import ReplayAgent, load_replay

            settings = _options(BashOptions, {"format_errors": 0, **options}, kind)
            return ReplayAgent(load_replay(argument), source=argument, options=settings)
        case "bash" if not separator:
            from aem_harness.agents.bash import BashAgent, BashOptions

            agent = BashAgent(_needed(policy, spec), _options(BashOptions, options, kind))
            _check_tools(policy, agent.tools)
            return agent
        case "deepswe" if not separator:
            from aem_harness.agents.deepswe import DeepsweAgent, DeepsweOptions

            return DeepsweAgent(_needed(policy, spec), _options(DeepsweOptions, options, kind))
        case "command" if argument:
            from aem_harness.agents.command import CommandAgent, CommandOptions

            return CommandAgent(argument, _options(CommandOptions, options, kind))
        case _ if argument and kind.replace(".", "").isidentifier():
            return _entry_point(kind, argument, policy, options)
    raise ConfigError(f"unknown agent {spec!r}: choose {CHOICES}")


def as_begun(spec: str, options: Mapping[str, Any], begun: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """`options` for an agent that continues a run, which `begun` describes as it was when that began (None: it begins).

    Earlier releases never sent thoughts back, and their descriptions say nothing of them: such a run goes on as it was.
    """
    if spec in AGENTS and begun and done_with(begun) == "drop":
        return {"thoughts": "drop", **options}
    return options


def check(spec: str, *, options: Mapping[str, Any], sampling: Mapping[str, Any], served: bool) -> None:
    """Refuse what `build` and `endpoint_policy` would refuse of the settings, before a server is started.

    `served`: there will be a model. Agents of the user's own are only made when it is there.
    """
    from aem_harness.agents.policy import Sampling

    _options(Sampling, sampling, "sampling", where="sampling")
    if ":" not in spec or spec.partition(":")[0] in ("replay", "command"):
        build(spec, options=options, policy=cast("Policy", object()) if served else None)


def endpoint_policy(
    model: str,
    endpoints: Sequence[str],
    sampling: Mapping[str, Any] | None = None,
    *,
    api_key: str | None = None,
    await_server: Callable[[], None] | None = None,
    gpus: float | None = None,
    retry_seconds: float | None = None,
) -> "EndpointPolicy":
    """The policy behind one or several endpoints; an empty `model` means the only one the first endpoint serves.

    `retry_seconds` is how long one call may take before it is given up and tried again.

    ConfigError for bad sampling parameters or an ambiguous or unserved model, PolicyFault when nothing answers.
    """
    from aem_harness.agents.policy import EndpointPolicy, Retry, Sampling, served_models
    from aem_harness.agents.refusals import check_context

    asked = _options(Sampling, sampling or {}, "sampling", where="sampling")
    for endpoint in endpoints:
        served = served_models(endpoint, api_key)
        if not model and len(served) == 1:
            model = served[0]
        if model not in served:
            lacks = f", not {model!r}" if model else ""
            raise ConfigError(f"{endpoint} serves {', '.join(served) or 'no model'}{lacks}: name one with --model")
        check_context(endpoint, api_key, model, asked.max_tokens)
    retry = Retry(seconds=retry_seconds) if retry_seconds else None
    return EndpointPolicy(model, endpoints, asked, api_key=api_key, retry=retry, await_server=await_server, gpus=gpus)


def _import(module: str) -> ModuleType:
    """A module of the installation, or else of the working folder (which comes last: it shadows nothing)."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return import_module(module)


def _needed(policy: Policy | None, spec: str) -> Policy:
    if policy is None:
        raise ConfigError(f"agent {spec!r} needs a model: give --checkpoint NAME or --endpoint URL")
    return policy


def _check_tools(policy: Policy | None, tools: Sequence[Mapping[str, Any]]) -> None:
    """ConfigError where the model would never see its tools: every rollout would end in malformed replies."""
    heeds = getattr(policy, "heeds_tools", None)
    if tools and heeds is not None and heeds(tools) is False:
        raise ConfigError(
            "the model's chat template ignores `tools`: the prompt is no longer with them than without, so the model "
            "never sees them; take prompts that ask for actions in text (-c agent_options.prompts=NAME), or serve with "
            "a chat template that shows tools (--chat-template)"
        )


def _no_options(kind: str, options: Mapping[str, Any]) -> None:
    if options:
        raise ConfigError(f"agent {kind!r} takes no options, got {', '.join(options)}")


def _options(
    record: type[AgentOptions], options: Mapping[str, Any], kind: str, *, where: str = "agent_options"
) -> AgentOptions:
    with validating(ConfigError, where, hint=f" ({kind} takes {', '.join(record.model_fields)})"):
        return record(**options)


def _entry_point(module: str, attribute: str, policy: Policy | None, options: Mapping[str, Any]) -> Agent:
    try:
        make = _import(module)
        for part in attribute.split("."):
            make = getattr(make, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"agent {module}:{attribute} cannot be imported ({error}); choose {CHOICES}") from None
    if not callable(make):
        raise ConfigError(f"agent {module}:{attribute} is not callable: give a class or function returning an Agent")
    try:
        agent = make(policy=policy, options=dict(options))
    except TypeError as error:
        raise ConfigError(f"agent {module}:{attribute} must accept policy= and options= ({error})") from None
    missing = [name for name in ("name", "run", "describe") if not hasattr(agent, name)]
    if missing:
        raise ConfigError(
            f"agent {module}:{attribute} returned no Agent: {type(agent).__name__} lacks {', '.join(missing)}"
        )
    built: Agent = agent
    return built
