"""mini-swe-agent's output folder: `preds.json` and `<instance>/<instance>.traj.json`, one folder a seed."""

import json
import shutil
from pathlib import Path

from aem_harness.harness.export import ExportedRollout, ExportedRun, Written, plain
from aem_harness.harness.io import write_json


def write(run: ExportedRun, out: Path) -> Written:
    seeds: dict[int, list[ExportedRollout]] = {}
    lost = 0
    for one in run.rollouts():
        if one.event["fault"] is None:
            seeds.setdefault(one.seed, []).append(one)
        else:
            lost += 1
    for seed, rollouts in seeds.items():
        folder = out / f"seed{seed}" if len(seeds) > 1 else out
        folder.mkdir(parents=True)
        for one in rollouts:
            _trajectory(one, folder)
        write_json(folder / "preds.json", {one.instance_id: _prediction(run, one) for one in rollouts})
    return Written(sum(map(len, seeds.values())), lost, "lost to infrastructure: an entry would read as an empty patch")


def _prediction(run: ExportedRun, one: ExportedRollout) -> dict[str, str]:
    return {
        "model_name_or_path": run.model,
        "instance_id": one.instance_id,
        "model_patch": str(plain(one.patch())),
    }


def _trajectory(one: ExportedRollout, folder: Path) -> None:
    source = one.folder / f"{one.instance_id}.traj.json"
    if source.is_file():
        (folder / one.instance_id).mkdir()
        text = source.read_text(encoding="utf-8")
        target = folder / one.instance_id / source.name
        if "Infinity" in text or "\\ud" in text:  # neither is JSON to a strict reader
            write_json(target, plain(json.loads(text)))
        else:
            shutil.copyfile(source, target)
