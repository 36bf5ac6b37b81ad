"""Real gates on shipped checkpoints, in containers: the one trained with AEM, the baseline itself, and a broken copy.

    python -m benchmarks.gate_real [--baseline tiny-grpo] [--candidate tiny-aem] [--set tiny] [--seeds 4] [--margin 10]
                                   [--noise 0.5] [--workers 3] [--out results/gate-real]

The baseline is run once, every task and seed; each candidate only as far as its gate needs. The same command again
continues, or prints the table of what is there. Serving uses vLLM where it is installed, else the fallback server.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from aem_harness.aem_checkpoints.registry import Registry

AEM = [sys.executable, "-m", "aem_harness.cli"]
NAMES = {"PASS": 0, "BLOCK": 1, "INCONCLUSIVE": 2}


def break_weights(source: Path, target: Path, noise: float, seed: int = 0) -> None:
    """A copy of a checkpoint with normal noise on every tensor: `noise` times the tensor's own standard deviation."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("card.yaml"))
    tensors = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    for name, values in tensors.items():
        scale = noise * values.float().std().nan_to_num()
        tensors[name] = (values + scale * torch.randn(values.shape, generator=generator)).to(values.dtype)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})


def aem(*words: object, good: frozenset[int] = frozenset({0})) -> str:
    """Run a command; what it printed. Its progress goes to stderr; one thread a process, for the fallback server."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    done = subprocess.run([*AEM, *map(str, words)], stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode not in good:
        sys.exit(f"aem {' '.join(map(str, words))} ended with exit code {done.returncode}")
    return done.stdout


def weights(name: str, registry: Path) -> str:
    (entry,) = Registry(registry).series(name)
    return entry.card.digests["model.safetensors"][:19]


def rate(folder: Path) -> str:
    grades = [event for event in map(json.loads, (folder / "journal.jsonl").open()) if event["event"] == "grade"]
    solved = sum(event["outcome"] == "resolved" for event in grades)
    return f"{100 * solved / len(grades):.1f} % ({solved}/{len(grades)})"


def line(found: Mapping[str, object], folder: Path, digest: str, seconds: float) -> str:
    low, value, high = (100 * float(str(found[name])) for name in ("lower", "difference", "upper"))
    used, planned = int(str(found["rollouts"])), int(str(found["planned"]))
    cells = [
        str(found["candidate"]), digest, rate(folder), str(found["verdict"]), f"{value:+.1f} [{low:+.1f}, {high:+.1f}]",
        f"{used} of {planned}", f"{planned - used} ({100 * (1 - used / planned):.0f} %)", f"{seconds:.0f} s",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--baseline", default="tiny-grpo")
    parser.add_argument("--candidate", default="tiny-aem")
    parser.add_argument("--set", default="tiny")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--margin", type=float, default=10)
    parser.add_argument("--noise", type=float, default=0.5)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("results/gate-real"))
    given = parser.parse_args()
    registry, base = given.out / "checkpoints", given.out / given.baseline
    registry.mkdir(parents=True, exist_ok=True)
    broken = f"{given.candidate}-broken"
    if not (registry / f"{broken}.yaml").exists():
        (original,) = Registry().series(given.candidate)
        assert original.folder is not None
        break_weights(original.folder, registry / broken, given.noise)
        words = ("--path", registry / broken, "--from-card", given.candidate, "--method", "other")
        aem("checkpoints", "add", broken, *words, "--registry", registry, "--replace")
    pace = ("--seeds", given.seeds, "--workers", given.workers, "--grade-workers", 1, "--registry", registry)
    aem("run", "--checkpoint", given.baseline, "--set", given.set, "--out", base, *pace)
    lines = []
    for checkpoint, arm in (
        (given.candidate, given.candidate),
        (given.baseline, f"{given.baseline}-again"),
        (broken, broken),
    ):
        folder, started = given.out / f"gate-{arm}", time.monotonic()
        words = (
            "--baseline",
            base,
            "--checkpoint",
            checkpoint,
            "--arm",
            arm,
            "--margin",
            given.margin,
            "--futility",
            0,
            "--json",
            *(
                ("-c", "stop_alike=0") if arm == broken else ()
            ),  # its replies are noise: what a user would look at first
        )
        files = ("--out", folder, "--junit", given.out / f"{arm}.xml", "--summary", given.out / f"{arm}.md")
        found = json.loads(aem("gate", *words, *files, *pace, good=frozenset(NAMES.values())))
        (given.out / f"{arm}.json").write_text(json.dumps(found, indent=1) + "\n")
        lines.append(line(found, folder, weights(checkpoint, registry), time.monotonic() - started))
    print(f"Baseline {given.baseline} ({weights(given.baseline, registry)}): {rate(base)}, {found['baseline_digest']}")
    print("\n| candidate | weights | resolved so far | verdict | points | rollouts | saved | time |")
    print("|---|---|---:|---|---|---:|---:|---:|\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
