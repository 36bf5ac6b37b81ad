"""A folder for the Hugging Face hub: rollouts as Parquet, and a dataset card that says what they are.

`datasets.load_dataset(FOLDER)` reads it. Columns that hold mixed values (tool calls) are JSON text.
"""

import json
from pathlib import Path
from typing import Any

from aem_harness.harness.export import ExportedRollout, ExportedRun, Written, sft
from aem_harness.harness.io import write_text


def write(run: ExportedRun, out: Path) -> Written:
    import pandas as pd

    rows = [_row(run, one) for one in run.rollouts()]
    (out / "data").mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(out / "data" / "train-00000-of-00001.parquet", index=False)
    write_text(out / "README.md", _card(run, rows))
    return Written(len(rows))


def _row(run: ExportedRun, one: ExportedRollout) -> dict[str, Any]:
    row = sft.row(run, one)
    messages = [
        {
            "role": message["role"],
            "content": message["content"],
            **{name: message[name] for name in ("reasoning_content",) if name in message},
            "tool_calls": json.dumps(message["tool_calls"]) if "tool_calls" in message else None,
        }
        for message in row["messages"]
    ]
    facts = ("steps", "prompt_tokens", "completion_tokens", "seconds", "mean_entropy", "patch_bytes")
    return row | {"messages": messages, "cause": one.why, **{name: one.event.get(name) for name in facts}}


def _card(run: ExportedRun, rows: list[dict[str, Any]]) -> str:
    rewards = [row["reward"] for row in rows if row["reward"] is not None]
    lost = len(rows) - len(rewards)
    solved = f"{sum(rewards):.0f} of {len(rewards)} graded rollouts resolved" if rewards else "no rollout graded"
    versions = ", ".join(f"{name} {version}" for name, version in run.facts["versions"].items())
    dataset = run.facts["dataset"]
    return (
        "---\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n\n"
        f"# Rollouts of {run.arm}\n\nModel {run.model} on {dataset['name']} ({dataset['digest'][:12]}): {solved}"
        f"{f', {lost} without a verdict (reward is null)' if lost else ''}.\n\n"
        f"One row for each rollout: messages, reward (1 resolved, 0 not), outcome, patch, costs.\n\n"
        f"Versions: {versions}.\n\n"
        "These rollouts are of an evaluation set. Training on them makes its score meaningless.\n"
    )
