"""Images that come over a slow link while agents work: makespan against its lower bound, and the disk that they take.

    python -m benchmarks.image_flow [--before TREE] [--budget 2]

Eight images of 40 MB (random bytes) lie in a registry behind a link of 4 MB/s. Each is worked with by two rollouts,
whose agents wait 5 s as for a model, with two workers. Registry, pulls and runner are real; containers and gradings are
left out (`benchmarks.image_flow_run`), so that a busy machine blurs little. The bound is the larger of two times: of
the bytes on the link, and of the agents on the workers. `--before` is another checkout of this project (git worktree),
which runs the same in turn. `--budget N` adds a run with a disk budget of N images; the images in the engine are
counted four times a second. Every run starts without the images; they are removed in the end.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from uuid import uuid4

from aem_harness.harness.instances.bundled import TINY
from aem_harness.harness.sandbox.engine import client
from benchmarks.link import Link, registry

IMAGES, MB, RATE, SEEDS, WORKERS, SECONDS = 8, 40, 4e6, 2, 2, 5
ROOT = Path(__file__).resolve().parents[1]


def make_images(link: Link, folder: Path) -> list[str]:
    """Build and push the images, and remove them here; their names."""
    names = [f"{link.address}/aem/flow-{uuid4().hex[:6]}-{n}:1" for n in range(IMAGES)]
    for name in names:
        context = folder / "context"
        context.mkdir(exist_ok=True)
        (context / "ballast").write_bytes(os.urandom(int(MB * 1e6)))
        (context / "Dockerfile").write_text("FROM scratch\nCOPY ballast /ballast\n")
        client().images.build(path=str(context), tag=name, rm=True, forcerm=True)
        client().images.push(name)
        forget([name])
    return names


def forget(names: list[str]) -> None:
    """Remove them from the engine."""
    for name in names:
        subprocess.run(["docker", "image", "rm", "--force", name], capture_output=True)


def rows(names: list[str], path: Path) -> Path:
    """Tasks of the set `tiny`, one of each image."""
    source = [json.loads(line) for line in (TINY / "rows.jsonl").read_text().splitlines()]
    with path.open("w") as file:
        for name, row in zip(names, source, strict=False):
            file.write(json.dumps({**{k: v for k, v in row.items() if k != "dockerfile"}, "image": name}) + "\n")
    return path


class Sampler(threading.Thread):
    """How many of the images are in the engine at a time, at most."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(daemon=True)
        self.names, self.most, self.over = set(names), 0, threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.25):
            tags = {tag for image in client().api.images() for tag in image.get("RepoTags") or ()}
            self.most = max(self.most, len(self.names & tags))


def measure(tree: Path, link: Link, names: list[str], folder: Path, budget: float | None) -> tuple[float, float, int]:
    """One run of the checkout `tree`: its makespan, the seconds of its bytes on the link, and images at a time."""
    forget(names)
    before, sampler = link.sent, Sampler(names)
    sampler.start()
    environment = os.environ | {
        "PYTHONPATH": str(tree / "src"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "AEM_FLOW_FOLDER": str(folder),
        "AEM_DISK_BUDGET": f"{budget / 1e6:.0f}MB" if budget else "",
    }
    script, dataset = Path(__file__).with_name("image_flow_run.py"), rows(names, folder / "rows.jsonl")
    words = [sys.executable, str(script), str(dataset), str(SEEDS), str(WORKERS), str(SECONDS)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    sampler.over.set()
    sampler.join()
    if done.returncode:
        raise SystemExit(f"{tree}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return float(done.stdout), (link.sent - before) / RATE, sampler.most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="TREE", help="another checkout, run in turn")
    parser.add_argument("--budget", type=float, metavar="N", help="a disk budget of so many images, in one more run")
    parser.add_argument("--times", type=int, default=1, help="runs of each")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="aem-flow-"))
    agents = IMAGES * SEEDS * SECONDS / WORKERS
    names: list[str] = []
    try:
        with registry(folder / "registry") as link:
            names = make_images(link, folder)
            link.rate = RATE
            plan: list[tuple[str, Path, float | None]] = []
            for _ in range(options.times):
                plan += [("before", options.before, None)] if options.before else []
                plan += [("now", ROOT, None)]
            if options.budget:
                plan += [(f"now, {options.budget:g} images", ROOT, options.budget * MB * 1e6 * 1.05)]
            print("run | makespan s | link s | agents s | of bound | link idle s | agents idle s | images at a time")
            for label, tree, budget in plan:
                took, busy, most = measure(tree, link, names, folder, budget)
                cells = f"{took:.0f} | {busy:.0f} | {agents:.0f} | {took / max(busy, agents):.2f}"
                print(f"{label} | {cells} | {took - busy:.0f} | {took - agents:.0f} | {most}", flush=True)
    finally:
        forget(names)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
