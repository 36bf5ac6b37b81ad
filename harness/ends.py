"""Whose fault it is: every word with which a rollout can end, ours and other tools', and what it does to a verdict.

One table for the runner, every importer and every command that reads outcomes. An end that is the model's or its
agent's counts, and the verdict stands. Any other end takes the verdict away, a good one too, so that the rule never
looks at the result. A YAML file of `word: whose` lines overrides rows, in all arms alike.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import ConfigError, fault_in


class Whose(StrEnum):
    """Who caused the end of a rollout. Only MODEL and AGENT count."""

    MODEL = "model"  # the policy, or a limit that was set for it
    AGENT = "agent"  # the scaffold's own code, the same in every arm
    INFRASTRUCTURE = "infrastructure"  # server, network, containers, host
    OPERATOR = "operator"  # a wrong setting, an interruption by hand
    UNKNOWN = "unknown"  # a word that the table does not have

    @property
    def counts(self) -> bool:
        return self in (Whose.MODEL, Whose.AGENT)


@dataclass(frozen=True)
class End:
    """One row: the word as its tool writes it, the tool, whose fault it is, and our own exit status for the same."""

    word: str
    tool: str
    whose: Whose
    status: str = ""


def _rows(tool: str, whose: Whose, *words: str) -> tuple[End, ...]:
    """`word`, or `word=our exit status`."""
    return tuple(End(word, tool, whose, status) for word, _, status in (text.partition("=") for text in words))


TABLE: tuple[End, ...] = (
    *_rows(
        "aem", Whose.MODEL, "submitted=submitted", "step_limit=step_limit", "token_limit=token_limit",
        "context_limit=context_limit", "wall_limit=wall_limit", "format_errors=format_errors",
        "sandbox_destroyed=sandbox_destroyed",
    ),
    *_rows("aem", Whose.AGENT, "agent_crash=agent_crash"),
    # a fault of our own has the boundary that was crossed (`harness.errors`) behind it
    *_rows(
        "aem", Whose.INFRASTRUCTURE, "fault=fault", "fault: environment=fault", "fault: policy=fault",
        "fault: grading=fault", "fault: host=fault", "fault: harness=fault",
    ),
    *_rows("aem", Whose.OPERATOR, "fault: config=fault", "fault: data=fault", "fault: comparison=fault"),
    # mini-swe-agent 1 and 2: its own exceptions; anything else is the class name of what was raised
    *_rows(
        "mini-swe-agent", Whose.MODEL, "LimitsExceeded=step_limit", "TimeExceeded=wall_limit",
        "FormatError=format_errors", "RepeatedFormatError=format_errors",
    ),
    *_rows("mini-swe-agent", Whose.OPERATOR, "UserInterruption"),
    # SWE-agent 1; `submitted (exit_x)` is looked up as exit_x
    *_rows(
        "SWE-agent", Whose.MODEL, "exit_cost=token_limit", "exit_context=context_limit", "exit_format=format_errors",
        "exit_command_timeout=wall_limit", "exit_total_execution_time=wall_limit", "exit_forfeit",
        "exit_command=submitted", "skipped",
    ),
    *_rows("SWE-agent", Whose.AGENT, "exit_error=agent_crash"),
    *_rows("SWE-agent", Whose.INFRASTRUCTURE, "exit_api", "exit_environment_error"),
    *_rows("SWE-agent", Whose.OPERATOR, "early_exit"),
    # litellm, openai and anthropic clients, as class names
    *_rows(
        "model client", Whose.MODEL, "ContextWindowExceededError=context_limit", "ContentPolicyViolationError",
        "ContentFilterFinishReasonError", "LengthFinishReasonError=token_limit",
    ),
    *_rows(
        "model client", Whose.INFRASTRUCTURE, "RateLimitError", "InternalServerError", "ServiceUnavailableError",
        "BadGatewayError", "APIConnectionError", "APIError", "APIStatusError", "APITimeoutError", "Timeout",
        "APIResponseValidationError", "OverloadedError", "DeadlineExceededError", "MidStreamFallbackError",
        "OpenAIError", "ConflictError", "RetryError",
    ),
    *_rows(
        "model client", Whose.OPERATOR, "AuthenticationError", "PermissionDeniedError", "NotFoundError",
        "BadRequestError", "InvalidRequestError", "UnprocessableEntityError", "UnsupportedParamsError",
        "BudgetExceededError", "RequestTooLargeError",
    ),
    # Harbor 0.25 and 0.26; a result that states `reward_valid` decides for itself
    *_rows(
        "Harbor", Whose.MODEL, "AgentTimeoutError=wall_limit", "ContextLengthExceededError=context_limit",
        "OutputTokenExceededError=token_limit", "OutputLengthExceededError=token_limit", "AgentSafetyRefusalError",
        "reward valid",
    ),
    *_rows("Harbor", Whose.AGENT, "NonZeroAgentExitCodeError=agent_crash"),
    *_rows(
        "Harbor", Whose.INFRASTRUCTURE, "EnvironmentStartTimeoutError", "EnvironmentBuildTimeoutError",
        "SandboxBuildFailedError", "AgentSetupTimeoutError", "HealthcheckError", "SandboxLikelyOutOfMemoryError",
        "MemoryLimitExceededError", "SSHAccessError", "GKEExecStreamClosedError", "GKEPodNotFoundError",
        "RuntimeRequestError", "AddTestsDirError", "DownloadVerifierDirError", "VerifierTimeoutError",
        "VerifierOutputParseError", "RewardFileNotFoundError", "RewardFileEmptyError", "RegradeError",
        "ApiRateLimitError", "ApiInternalServerError", "ApiOverloadedError", "ApiConnectionClosedError",
        "ApiResponseStalledError", "ApiUsageLimitError", "UnknownApiError",
        "NetworkConnectionError", "reward not valid", "no reward", "no result",
    ),
    *_rows(
        "Harbor", Whose.OPERATOR, "UnsupportedModelParametersError", "AgentAuthenticationError", "ModelNotFoundError",
        "ApiProviderResourceNotFoundError", "ServiceOperationsUnsupportedError", "VercelScopeError",
        "DspyImportError", "MissingExtraError", "CancelledError",
    ),
    # Inspect: the type of a sample's limit, and what a sample without a verdict is
    *_rows(
        "Inspect", Whose.MODEL, "message_limit=step_limit", "turn_limit=step_limit", "time_limit=wall_limit",
        "working_limit=wall_limit", "cost_limit=token_limit", "custom_limit",
    ),
    *_rows("Inspect", Whose.INFRASTRUCTURE, "sample error", "unscored"),
    *_rows("Inspect", Whose.OPERATOR, "operator_limit", "invalidated"),
    # NeMo Evaluator: scoring_details.error_category
    *_rows("NeMo Evaluator", Whose.AGENT, "graceful"),
    *_rows("NeMo Evaluator", Whose.INFRASTRUCTURE, "infra_error", "system"),
    # OpenHands: a sentence in `error`, told by how it begins (see `interop.openhands`), or `status`
    *_rows(
        "OpenHands", Whose.MODEL, "AgentStuckInLoopError=step_limit", "MaxIterationsReached=step_limit",
        "LLMContextWindowExceedError=context_limit", "ConversationRunError",
    ),
    *_rows(
        "OpenHands", Whose.INFRASTRUCTURE, "AgentRuntimeError", "AgentRuntimeTimeoutError",
        "AgentRuntimeUnavailableError", "AgentRuntimeDisconnectedError", "AgentRuntimeNotReadyError",
        "AgentRuntimeBuildError", "LLMServiceUnavailableError", "LLMRateLimitError", "LLMTimeoutError",
        "LLMAuthenticationError", "LLMNoResponseError", "instance error",
    ),
    *_rows("OpenHands", Whose.OPERATOR, "UserCancelledError"),
    # swebench run reports: `error_ids`, as the official rate counts them, unless `failure_reasons` or a log says more
    *_rows("swebench", Whose.MODEL, "error_ids"),
    *_rows(
        "swebench", Whose.INFRASTRUCTURE, "failed_ids", "infra_failure_ids", "browser_launch_failed",
        "display_unavailable", "out_of_memory", "container_unavailable", "network_unreachable",
    ),
    # what Python, requests, docker-py and the container engine raise in any of these tools
    *_rows(
        "host", Whose.INFRASTRUCTURE, "OSError", "IOError", "PermissionError", "FileNotFoundError", "BlockingIOError",
        "BrokenPipeError", "ConnectionError", "ConnectionRefusedError", "ConnectionResetError",
        "ConnectionAbortedError", "ConnectionClosed", "TimeoutError", "MemoryError", "CalledProcessError",
        "TimeoutExpired", "SSLError", "HTTPError", "ReadTimeout", "ConnectTimeout", "ConnectError", "ReadError",
        "RemoteProtocolError", "RemoteDisconnected", "IncompleteRead", "ChunkedEncodingError", "ProxyError",
        "MaxRetryError", "ProtocolError", "DockerException", "DockerPullError", "ImageNotFound",
        "ContainerError", "SwerexException",
    ),
    *_rows("host", Whose.OPERATOR, "KeyboardInterrupt", "SystemExit"),
)  # fmt: skip

_INNER = re.compile(r"^\s*submitted\s*\((?P<end>[^)]+)\)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Ends:
    """The table, by word; case does not matter, nor does a module in front of a class name."""

    rows: Mapping[str, End]
    overridden: Mapping[str, Whose]

    def of(self, word: str) -> End:
        """The row of `word`; an unlisted one is nobody's yet, so it does not count."""
        text = " ".join(word.split())
        if (inner := _INNER.match(text)) and text.lower() not in self.rows:
            text = inner["end"]
        for name in (text, text.rpartition(".")[2]):
            if found := self.rows.get(name.lower()):
                return replace(found, word=name)
        return End(text, "", Whose.UNKNOWN)

    def raised(self, error: BaseException) -> End:
        """The row of an exception that came out of a rollout: a fault by its boundary, else the agent's own crash."""
        fault = fault_in(error)
        return self.of("agent_crash" if fault is None else f"fault: {fault.boundary}")

    @property
    def overrides(self) -> dict[str, Whose]:
        """What the user's rows say, by word as the table spells it; `read_ends` reads it back."""
        return {self.rows[word].word: whose for word, whose in self.overridden.items()}

    def says(self, word: str) -> bool:
        """Does the user's file speak of `word`? Then it is heard before what another tool's file says of itself."""
        return self.of(word).word.lower() in self.overridden


def _built_in() -> dict[str, End]:
    return {end.word.lower(): end for end in TABLE}


def read_ends(source: "Ends | Path | str | Mapping[str, str] | None" = None) -> Ends:
    """The table with rows overridden: by a YAML file of `word: whose` lines, or by a mapping of the same.

    Raises ConfigError for a file that cannot be read and for a row that makes no sense.
    """
    if isinstance(source, Ends):
        return source
    said: Mapping[Any, Any]
    if source is None or isinstance(source, Mapping):
        where, said = "ends", source or {}
    else:
        where, said = str(source), _from_yaml(Path(source))
    rows, overridden = _built_in(), {}
    known = [one.value for one in Whose if one is not Whose.UNKNOWN]
    for word, whose in said.items():
        if whose not in known:
            raise ConfigError(f"{where}: {word} is {whose!r}; it must be one of {', '.join(known)}")
        key = str(word).lower()
        overridden[key] = Whose(whose)
        rows[key] = replace(rows.get(key, End(str(word), "yours", Whose.UNKNOWN)), whose=overridden[key])
    return Ends(rows, overridden)


def _from_yaml(path: Path) -> Mapping[Any, Any]:
    import yaml

    try:
        said = yaml.safe_load(path.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(said, dict):
        raise ConfigError(f"{path} must hold lines of `word: whose`, for example `exit_api: model`")
    return said
