"""Images that come over a slow link while agents work: makespan against its lower bound, and the disk that they take.

    python -m benchmarks.image_flow [--before TREE] [--budget 2]

Eight images of 40 MB (random bytes over the image of the set `tiny`) lie in a registry behind a link of 4 MB/s. Each is
worked with by two rollouts, whose agent waits 5 s as for a model, with two workers. The bound is the larger of the time
that the bytes take on the link and the time of the same run with all images here already (agents, containers, gradings
and start-up), which is measured first. `--before` is another checkout of this
project (git worktree), which runs the same in turn. `--budget N` gives the run a disk budget of N images, and samples
how many of them are in the engine at a time. Every run starts without the images; they are removed in the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from uuid import uuid4

from aem_harness.harness.instances.bundled import TINY
from aem_harness.harness.instances.load import load
from aem_harness.harness.sandbox.engine import client
from aem_harness.harness.sandbox.images import ensure_image
from benchmarks.link import Link, registry

IMAGES, MB, RATE, SEEDS, WORKERS, SECONDS = 8, 40, 4e6, 2, 2, 5
ROOT = Path(__file__).resolve().parents[1]


def make_images(link: Link, count: int, megabytes: float, mark: str) -> list[str]:
    """Build and push images of so many random megabytes over the set's own, and remove them here; their names."""
    task = load("tiny").tasks[0]
    ensure_image(task)
    names = []
    for n in range(count):
        name = f"{link.address}/aem/flow-{mark}-{n}:1"
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "ballast").write_bytes(os.urandom(int(megabytes * 1e6)))
            (Path(folder) / "Dockerfile").write_text(f"FROM {task.instance.image}\nCOPY ballast /ballast\n")
            client().images.build(path=folder, tag=name, labels={"aem.recipe": ""}, rm=True, forcerm=True)
        client().images.push(name)
        names.append(name)
    forget(names)
    return names


def forget(names: list[str]) -> None:
    """Remove them from the engine, and what was built on the way."""
    for name in names:
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True)


def rows(names: list[str], path: Path) -> Path:
    """Tasks of the set `tiny`, one of each image."""
    source = [json.loads(line) for line in (TINY / "rows.jsonl").read_text().splitlines()]
    with path.open("w") as file:
        for name, row in zip(names, source, strict=False):
            row = {key: value for key, value in row.items() if key not in ("dockerfile", "build_args")}
            file.write(json.dumps({**row, "image": name}) + "\n")
    return path


def agent(path: Path, seconds: float) -> Path:
    """An agent that waits as for a model, and leaves a file."""
    path.write_text(
        f'exec docker exec -w "$AEM_WORKDIR" "$AEM_CONTAINER" bash -c "sleep {seconds}; echo touched > touched"\n'
    )
    return path


class Sampler(threading.Thread):
    """How many of the images are in the engine at a time, at most."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(daemon=True)
        self.names, self.most, self.over = set(names), 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.25):
            listed = subprocess.run(
                ["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"], capture_output=True, text=True
            )
            self.most = max(self.most, len(self.names & set(listed.stdout.split())))


def measure(tree: Path, link: Link, names: list[str], folder: Path, *words: str) -> dict[str, float]:
    """One run of the checkout `tree`: its wall time and that of its bytes on the link, and images at a time."""
    out = folder / f"run-{uuid4().hex[:6]}"
    command = [sys.executable, "-m", "aem_harness.cli", "run", "--set", str(rows(names, folder / "rows.jsonl"))]
    command += ["--agent", f"command:bash {agent(folder / 'agent.sh', SECONDS)}", "-k", str(SEEDS), "-w", str(WORKERS)]
    command += ["--no-canary", "--out", str(out), *words]
    before, sampler = link.sent, Sampler(names)
    sampler.start()
    began = time.monotonic()
    environment = os.environ | {"PYTHONPATH": str(tree / "src"), "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    wall = time.monotonic() - began
    sampler.over.set()
    sampler.join()
    events = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    graded = [event["outcome"] for event in events if event["event"] == "grade"]
    if done.returncode or len(graded) != len(names) * SEEDS:
        raise SystemExit(f"{tree}: exit code {done.returncode}, {len(graded)} graded\n{done.stderr[-2000:]}")
    return {"wall": wall, "link": (link.sent - before) / RATE, "images": sampler.most}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="TREE", help="another checkout, run in turn")
    parser.add_argument("--budget", type=float, metavar="N", help="a disk budget of so many images, in one more run")
    parser.add_argument("--times", type=int, default=1, help="runs of each")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="aem-flow-"))
    mark = uuid4().hex[:6]
    try:
        with registry(folder / "registry") as link:
            names = make_images(link, IMAGES, MB, mark)
            link.rate = RATE
            plan: list[tuple[str, Path, tuple[str, ...]]] = []
            for _ in range(options.times):
                plan += [("before", options.before, ())] if options.before else []
                plan += [("now", ROOT, ())]
            if options.budget:
                size = client().images.get(load("tiny").tasks[0].instance.image).attrs["Size"]
                budget = size + options.budget * MB * 1e6 * 1.05
                plan += [
                    (f"now, budget of {options.budget:g} images", ROOT, ("--disk-budget", f"{budget / 1e6:.0f}MB"))
                ]
            for name in names:
                client().images.pull(name)
            alone = measure(ROOT, link, names, folder)["wall"]
            print(f"with all images here: {alone:.0f} s")
            print("run | wall s | link s | wall / bound | link idle s | agents idle s | images at a time")
            for label, tree, words in plan:
                forget(names)
                seen = measure(tree, link, names, folder, *words)
                wall, busy = seen["wall"], seen["link"]
                ratio = wall / max(busy, alone)
                cells = f"{wall:.0f} | {busy:.0f} | {ratio:.2f} | {wall - busy:.0f} | {wall - alone:.0f}"
                print(f"{label} | {cells} | {seen['images']:.0f}", flush=True)
            forget(names)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
