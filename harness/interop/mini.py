"""A mini-swe-agent output folder: preds.json, `<instance>/<instance>.traj.json`, and an official report.

mini-swe-agent writes an entry with an empty patch for an instance whose rollout raised, with the exception's class name
as exit status: whose fault that is, `harness.ends` says.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.interop import ImportSource, Row
from aem_harness.harness.interop.files import table
from aem_harness.harness.interop.predictions import find_predictions, find_verdicts, predictions_by_task, row
from aem_harness.harness.interop.trajectories import Trajectory
from aem_harness.harness.run.thoughts import Reply, Thoughts

# What litellm 1.110.2 leaves out for a model whose name has one of these in it (findings/litellm-drops-sampling-*.sh).
TAKEN_FOR_ANOTHER = ("gpt-5", "gpt-6")
UNSENT = (
    *("temperature", "top_p", "stop", "logprobs", "top_logprobs", "presence_penalty", "frequency_penalty"),
    "logit_bias",
)


def matches(path: Path) -> bool:
    if path.is_file():
        return path.name.startswith("preds.json") or path.name.endswith("preds.json.gz")
    return (path / "preds.json").is_file() and not any(path.glob("*/*.traj"))


def read(source: ImportSource) -> list[Row]:
    folder = source.path if source.path.is_dir() else source.path.parent
    file = source.path if source.path.is_file() else find_predictions(folder)
    predictions = predictions_by_task(file, source.problems) if file else {}
    verdicts = find_verdicts(source)
    arm = source.arm or folder.name
    unsent: list[list[str]] = []
    thoughts = Thoughts()

    def look(trajectory: Trajectory) -> None:
        count(trajectory, thoughts)
        if not unsent and "config" in trajectory.info:  # all rollouts of a folder have one configuration
            unsent.append(left_out(trajectory.info))

    rows: list[Row] = [
        row(source, name, predictions.get(name), verdicts.get(name), folder / name / f"{name}.traj.json", arm, look)
        for name in sorted({*predictions, *verdicts})
    ]
    if any(unsent):
        source.problems.note(
            f"{source.path}: by the model's name litellm leaves out {', '.join(unsent[0])} of what was asked, so "
            "these rollouts were probably sampled as their server likes"
        )
    if thoughts.lost:
        source.problems.note(
            f"{source.path}: at least {thoughts.lost} of {thoughts.replies} replies with thoughts in a field of their "
            "own are followed by a prompt that lacks these: the chat template leaves them out, or the server does not "
            "read the field in which litellm sends them (vLLM 0.16 to 0.21)"
        )
    return rows


def count(trajectory: Trajectory, thoughts: Thoughts) -> None:
    """Add the replies of a rollout. What litellm returns is sent back to it whole, thoughts included."""
    thoughts.end()
    for turn in trajectory.turns:
        size = len(turn.text) + sum(map(len, turn.commands))
        tokens = turn.prompt_tokens or 0, turn.completion_tokens or 0
        thoughts.add(Reply(turn.thought, size, size, *tokens, valid=not turn.malformed))


def left_out(info: Mapping[str, Any]) -> list[str]:
    """The sampling settings of a trajectory's configuration that litellm did not send to a server of one's own."""
    model = table(table(info.get("config")).get("model"))
    asked = {name: value for name, value in table(model.get("model_kwargs")).items() if value is not None}
    name = str(model.get("model_name"))
    another = any(one in name for one in TAKEN_FOR_ANOTHER) and "gpt-5-chat" not in name.rpartition("/")[2]
    own_server = name.startswith("openai/") and not asked.keys().isdisjoint(("api_base", "base_url"))
    if not (another and own_server and asked.get("drop_params")):
        return []
    return [one for one in UNSENT if one in asked and not (one == "temperature" and asked[one] == 1)]  # 1 is sent
