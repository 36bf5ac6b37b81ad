"""A predictions file as a run: its patches become finished rollouts, so that grading, continuing, reports and
comparisons work for them as for any run.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.grading.official import PATCH
from aem_harness.harness.run.store import RunStore, now, read_patch, write_patch
from aem_harness.harness.run.trajectory import Summary
from aem_harness.harness.types import AgentExit, Environment, ExitStatus, Instance, Prediction, Recorder


class Submission:
    """The `Agent` of such a run. It has nothing to do: all rollouts exist before the run starts."""

    name = "predictions"

    def run(self, instance: Instance, environment: Environment, record: Recorder, *, seed: int) -> AgentExit:
        raise ConfigError(f"{instance.instance_id} has no prediction (a predictions run cannot make one)")

    def describe(self) -> Mapping[str, Any]:
        return {"kind": self.name}


def enter(store: RunStore, predictions: Iterable[Prediction]) -> int:
    """Make each prediction a finished rollout of seed 0, and return how many were new or changed.

    An unchanged patch keeps its grade. A changed one becomes a new attempt, which is then graded again; the earlier
    attempt is kept beside it.
    """
    entered = 0
    for prediction in predictions:
        key = prediction.instance_id, 0
        known = store.progress.get(key)
        if known and read_patch(store.rollout_folder(*key) / PATCH) == prediction.model_patch:
            continue
        scratch = store.scratch(*key)
        write_patch(scratch / PATCH, prediction.model_patch)
        event = {
            "event": "rollout",
            "instance_id": prediction.instance_id,
            "seed": 0,
            "attempt": known.rollout["attempt"] + 1 if known else 0,
            "exit_status": ExitStatus.SUBMITTED.value,
            "reason": "",
            **Summary().facts(),
            "seconds": 0.0,
            "patch_bytes": len(prediction.model_patch.encode("utf-8", "surrogateescape")),
            "image_digest": "",
            "fault": None,
            "at": now(),
        }
        store.finish_rollout(scratch, event)
        entered += 1
    return entered
