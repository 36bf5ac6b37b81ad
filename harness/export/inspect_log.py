"""An Inspect log (`.eval`), written by inspect_ai itself, that `inspect view` opens.

A sample for each rollout: `id` is the instance, `epoch` the seed counted from 1. The score `swe_bench` is 1 or 0. A
rollout that was lost to infrastructure is a sample with an error and without a score; the log's headline rate leaves
it out, as Inspect does. Tried with inspect_ai 0.3.285 (`pip install inspect_ai`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.export import ExportedRollout, ExportedRun, Written, plain, said, text_of, tool_call
from aem_harness.harness.run.store import latest
from aem_harness.harness.run.thoughts import thought_in

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

SCORER = "swe_bench"


def write(run: ExportedRun, out: Path) -> Written:
    try:
        from inspect_ai.log import write_eval_log
    except ImportError:
        raise ConfigError("Inspect logs are written by inspect_ai: pip install inspect_ai") from None
    if out.suffix not in (".eval", ".json"):
        raise ConfigError(f"{out} must end in .eval or .json")
    log = eval_log(run)
    write_eval_log(log, str(out))
    return Written(len(log.samples or ()))


def eval_log(run: ExportedRun) -> "EvalLog":
    """The run as an EvalLog with samples."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec, EvalStats

    rollouts = list(run.rollouts())
    samples = [_sample(run, one) for one in rollouts]
    names = list(dict.fromkeys(one.instance_id for one in rollouts))
    scored = [float(one.resolved) for one in rollouts if one.resolved is not None]
    dataset: Mapping[str, Any] = run.facts["dataset"]
    score = EvalScore(
        name=SCORER,
        scorer=SCORER,
        scored_samples=len(scored),
        unscored_samples=len(rollouts) - len(scored),
        metrics={"mean": EvalMetric(name="mean", value=sum(scored) / len(scored))} if scored else {},
    )
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=run.facts["created_at"],
            task=str(dataset["name"]),
            task_id=str(run.facts["run_id"]),
            run_id=str(run.facts["run_id"]),
            dataset=EvalDataset(name=str(dataset["name"]), samples=len(names), sample_ids=list(names)),
            model=run.model,
            config=EvalConfig(epochs=len({one.seed for one in rollouts})),
            packages={name: str(version) for name, version in run.facts["versions"].items()},
            metadata=plain({"arm": run.arm, "agent": dict(run.facts["agent"]), "digest": run.facts["config_digest"]}),
        ),
        results=EvalResults(total_samples=len(samples), completed_samples=len(scored), scores=[score]),
        stats=EvalStats(
            started_at=run.facts["created_at"],
            completed_at=latest(one.event.get("at") for one in rollouts),
        ),
        samples=samples,
    )


def _sample(run: ExportedRun, one: ExportedRollout) -> "EvalSample":
    from inspect_ai.log import EvalError, EvalSample
    from inspect_ai.model import ModelOutput, ModelUsage
    from inspect_ai.scorer import Score

    event = one.event
    messages = list(_messages(one))
    usage = ModelUsage(
        input_tokens=event.get("prompt_tokens") or 0,
        output_tokens=event.get("completion_tokens") or 0,
        total_tokens=(event.get("prompt_tokens") or 0) + (event.get("completion_tokens") or 0),
    )
    score = (
        Score(value=float(one.resolved), answer=plain(one.patch()), explanation=plain(one.why))
        if one.resolved is not None
        else None
    )
    return EvalSample(
        id=one.instance_id,
        epoch=one.seed + 1,
        input=next((m.text for m in messages if m.role == "user"), ""),
        target="",
        messages=messages,
        output=ModelOutput.from_content(
            run.model, next((m.text for m in reversed(messages) if m.role == "assistant"), "")
        ),
        scores={SCORER: score} if score else None,
        metadata=plain(
            {
                "repo": (run.facts.get("tasks") or {}).get(one.instance_id, {}).get("repo"),
                "outcome": one.outcome.value if one.outcome else None,
                "exit_status": event["exit_status"],
                "steps": event.get("steps"),
                "mean_entropy": event.get("mean_entropy"),
            }
        ),
        model_usage={run.model: usage},
        total_time=event.get("seconds"),
        error=EvalError(message=plain(one.why), traceback="", traceback_ansi="") if score is None else None,
    )


def _messages(one: ExportedRollout) -> Iterator[Any]:
    """The conversation with ids that are unique in the sample; a reply without an action is the assistant's too."""
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
        ContentReasoning,
        ContentText,
    )
    from inspect_ai.tool import ToolCall

    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser}
    for number, message in enumerate(one.trajectory()["messages"]):
        reply, role = said(message), message.get("role")
        if reply is not None:
            calls = [_call(call) for call in message.get("tool_calls") or ()]
            thought = plain(thought_in(message))
            yield ChatMessageAssistant(
                id=f"{number}-reply",
                content=[ContentReasoning(reasoning=thought), ContentText(text=reply)] if thought else reply,
                tool_calls=[ToolCall(**call) for call in calls] or None,
            )
        if role in kinds:
            yield kinds[role](id=str(number), content=text_of(message))
        elif role == "tool":
            yield ChatMessageTool(id=str(number), content=text_of(message), tool_call_id=message.get("tool_call_id"))


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    number, name, arguments = tool_call(call)
    return {"id": number, "function": name, "arguments": arguments}
