"""One run on three engines, as a pool and as the nodes of a Ray cluster: results as on one, whatever dies meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aem_harness.harness.run.regrading import read_regrades
from aem_harness.harness.run.store import read_journal
from benchmarks.link import Link, registry
from tests.run.more_engines import MoreEngine, more_engines, small_set

ROOT = Path(__file__).parents[2]
TASKS, SEEDS = 6, 2

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.extended,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("dockerd") and shutil.which("ip")),
        reason="more engines need root, dockerd and ip",
    ),
]


@pytest.fixture(scope="module")
def rows_and_engines(engine: None, tmp_path_factory) -> Iterator[tuple[Path, list[MoreEngine]]]:
    rows, image = small_set(tmp_path_factory.mktemp("rows"), TASKS)
    with more_engines(3, image) as engines:
        yield rows, engines


@pytest.fixture
def engines(rows_and_engines) -> list[MoreEngine]:
    """All three, up."""
    for one in rows_and_engines[1]:
        if one._process is None:
            one.start()
    return rows_and_engines[1]


@pytest.fixture(scope="module")
def run_alone(rows_and_engines, tmp_path_factory) -> Path:
    """The folder of the same run on one engine."""
    rows, engines = rows_and_engines
    out = tmp_path_factory.mktemp("alone") / "run"
    finished = subprocess.run(command(rows, out, latency=0.0), env=environment(engines[0]), capture_output=True)
    assert finished.returncode == 0, finished.stderr.decode()
    return out


@pytest.fixture(scope="module")
def alone(run_alone) -> dict[tuple[str, int], Any]:
    return results(run_alone)


def command(rows: Path, out: Path, *more: str, latency: float = 0.3, seeds: int = SEEDS) -> list[str]:
    return [
        *(sys.executable, "-m", "aem_harness.cli", "run", "--agent", "tests.run.cluster_agent:Slow"),
        *("--set", str(rows), "--out", str(out), "-k", str(seeds), "--workers", "6", "--grade-workers", "3"),
        *("-c", f"agent_options.latency={latency}", "-c", f"agent_options.rows={rows}", "--arm", "slow", "--no-canary"),
        *("-c", f"agent_options.log={out.with_suffix('.begun')}", "-c", "infra_retries=0", *more),
    ]


def environment(engine: MoreEngine | None = None, **more: str) -> dict[str, str]:
    """Of a process whose own engine is that one; without it, none."""
    own = engine.address if engine else "unix:///nowhere/docker.sock"
    paths = f"{ROOT}/src:{ROOT}"
    return {**os.environ, "DOCKER_HOST": own, "PYTHONPATH": paths, "COLUMNS": "200", **more}


def results(out: Path) -> dict[tuple[str, int], Any]:
    """What the journal says of each rollout. Fails where one, or its grade, is there twice or was a second attempt."""
    rollouts: dict[tuple[str, int], Any] = {}
    grades: dict[tuple[str, int], str] = {}
    for event in read_journal(out):
        key = event["instance_id"], event["seed"]
        known: dict[tuple[str, int], Any] = rollouts if event["event"] == "rollout" else grades
        assert key not in known, f"{key} is journaled twice"
        if event["event"] == "rollout":
            assert event["attempt"] == 0, event
            known[key] = event["exit_status"], event["steps"], event["commands"], event["patch_bytes"], event["fault"]
        else:
            known[key] = event["outcome"]
    return {key: (found, grades.get(key)) for key, found in rollouts.items()}


def begun(out: Path) -> list[str]:
    path = out.with_suffix(".begun")
    return path.read_text().splitlines() if path.exists() else []


def when(condition: Callable[[], bool], seconds: float = 120) -> None:
    waiting, beat = 0.0, threading.Event()
    while not condition():
        beat.wait(0.05)
        waiting += 0.05
        assert waiting < seconds, "what was waited for did not happen"


def pool(engines: list[MoreEngine]) -> list[str]:
    return ["--engine", ",".join(engine.address for engine in engines)]


def nothing_left(engines: list[MoreEngine]) -> None:
    assert [engine.containers() for engine in engines] == [[] for _ in engines]


def test_a_pool_of_engines_gives_the_results_of_one_also_when_one_is_killed(
    rows_and_engines, engines, alone, tmp_path
) -> None:
    rows, out = rows_and_engines[0], tmp_path / "run"
    running = subprocess.Popen(
        command(rows, out, *pool(engines), latency=0.6), env=environment(), stderr=subprocess.PIPE, text=True
    )
    when(lambda: len(begun(out)) >= 6 and bool(engines[1].containers()))
    engines[1].kill()
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said
    assert f"{engines[1].address} is away" in said
    assert results(out) == alone
    assert len(begun(out)) > TASKS * SEEDS, "something was under way on the engine that died"
    nothing_left([engines[0], engines[2]])
    engines[1].start()  # what it held is removed by the next run there
    again = subprocess.run(
        command(rows, out, *pool(engines), latency=0.6, seeds=SEEDS + 1), env=environment(), capture_output=True
    )
    assert again.returncode == 0, again.stderr.decode()
    nothing_left(engines)
    predictions = ["grade", str(out / "predictions.jsonl"), "--set", str(rows), "--no-canary", "-w", "3"]
    graded = subprocess.run(
        [sys.executable, "-m", "aem_harness.cli", *predictions, "--out", str(tmp_path / "graded"), *pool(engines)],
        env=environment(),
        capture_output=True,
    )
    assert graded.returncode == 0, graded.stderr.decode()
    ours = {key[0]: found[1] for key, found in results(tmp_path / "graded").items()}
    assert ours == {name: found[1] for (name, seed), found in alone.items() if seed == 0}


def test_two_addresses_of_one_engine_are_refused(rows_and_engines, engines, tmp_path) -> None:
    second = tmp_path / "docker.sock"
    second.symlink_to(engines[0].socket)
    asked = command(rows_and_engines[0], tmp_path / "run", "--engine", f"{engines[0].address},unix://{second}")
    found = subprocess.run(asked, env=environment(), capture_output=True, text=True)
    assert (found.returncode, "are the same engine: name it once" in found.stderr) == (4, True), found.stderr


# --- Ray ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nodes(rows_and_engines) -> Iterator[Any]:
    """A Ray cluster without nodes; processes join it at `address`."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'aem-harness[ray]'")
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}/src:{ROOT}")
        patch.setenv("RAY_worker_niceness", "0")  # Ray's own is 15: on a busy machine workers would hardly run
        made = Cluster()
        made.members = {}
        try:
            yield made
        finally:
            made.shutdown()


@pytest.fixture(scope="module")
def mirrors() -> Iterator[list[Link]]:
    """Each node's own link to the registry that a test may start."""
    made = [Link(("127.0.0.1", 1)) for _ in range(3)]
    yield made
    for link in made:
        link.close()


@pytest.fixture
def cluster(nodes, engines, mirrors, tmp_path_factory) -> Any:
    """Three nodes, each with an engine and a mirror of its own, all alive."""
    for n, engine in enumerate(engines):
        if n not in nodes.members:
            own = {"DOCKER_HOST": engine.address, "PYTHONPATH": f"{ROOT}/src:{ROOT}"}
            own |= {"AEM_IMAGE_MIRROR": mirrors[n].address, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))}
            nodes.members[n] = nodes.add_node(
                num_cpus=1, object_store_memory=100 << 20, include_dashboard=False, env_vars=own
            )
    return nodes


def aem(*words: Any, engine: MoreEngine | None = None, folder: Path | None = None) -> subprocess.Popen[str]:
    """A command that has begun; its own engine is that one, or none."""
    asked = [sys.executable, "-m", "aem_harness.cli", *map(str, words)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(asked, env=environment(engine), cwd=folder, **pipes)


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What it printed, on both streams."""
    printed, said = process.communicate(timeout=300)
    assert process.returncode == code, printed + said
    return printed + said


def copied(run: Path, to: Path) -> Path:
    """The run under its own name, by which samples are drawn."""
    shutil.copytree(run, to / run.name, symlinks=True)
    return to / run.name


def sites(kind: str, request: pytest.FixtureRequest, engines: list[MoreEngine]) -> list[str]:
    return ["--ray", request.getfixturevalue("cluster").address] if kind == "ray" else pool(engines)


KINDS = pytest.mark.parametrize("kind", ["pool", "ray"])


def test_predictions_get_the_verdicts_of_one_engine_also_when_one_is_killed(
    rows_and_engines, engines, cluster, run_alone, alone, tmp_path
) -> None:
    rows = rows_and_engines[0]
    words = ["grade", run_alone / "predictions.jsonl", "--set", rows, "--no-canary", "-w", "3", "--out", tmp_path / "g"]
    grading = aem(*words, "--ray", cluster.address)
    when(lambda: bool(engines[1].containers()))
    engines[1].kill()
    ended(grading)
    found = {key: outcome for key, (_, outcome) in results(tmp_path / "g").items()}
    assert found == {key: outcome for key, (_, outcome) in alone.items() if key[1] == 0}
    nothing_left([engines[0], engines[2]])


@KINDS
def test_patches_are_graded_again_on_many_engines_as_on_one(
    kind, rows_and_engines, engines, run_alone, alone, tmp_path, request
) -> None:
    run = copied(run_alone, tmp_path)
    words = ["regrade", run, "--times", "2", "--workers", "3", *sites(kind, request, engines)]
    first = aem(*words)
    when(lambda: (run / "regrades.jsonl").exists())
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    assert first.returncode == 130
    nothing_left(engines)
    kept = len(read_regrades(run))
    second = aem(*words)
    when(lambda: len(read_regrades(run)) > kept and bool(engines[1].containers()))
    engines[1].kill()
    ended(second)
    found = read_regrades(run)
    graded = {key: outcome for key, (_, outcome) in alone.items() if outcome != "empty_patch"}
    assert len(found) == 2 * len(graded), "each twice, and nothing more often"
    assert {(one.instance_id, one.seed): one.now.value for one in found} == graded
    nothing_left([engines[0], engines[2]])


@KINDS
def test_an_audit_on_many_engines_finds_what_it_finds_on_one(
    kind, rows_and_engines, engines, run_alone, tmp_path, request
) -> None:
    def findings(run: Path) -> dict[str, str]:
        return {str(path.relative_to(run)): json.loads(path.read_text())["state"] for path in run.rglob("canary.json")}

    here = copied(run_alone, tmp_path / "here")
    ended(aem("audit", here, "--canary", "1", "-w", "3", engine=engines[0]))
    there = copied(run_alone, tmp_path / "there")
    words = ["audit", there, "--canary", "1", "-w", "3", *sites(kind, request, engines)]
    first = aem(*words)
    when(lambda: any(engine.containers() for engine in engines))
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = aem(*words)
    when(lambda: bool(findings(there)) and bool(engines[1].containers()))
    engines[1].kill()
    ended(second)
    assert findings(there) == findings(here) != {}
    nothing_left([engines[0], engines[2]])


@KINDS
def test_a_gate_of_two_arms_decides_on_many_engines_as_on_one(
    kind, rows_and_engines, engines, run_alone, tmp_path, request
) -> None:
    def gate(out: Path, *more: Any, engine: MoreEngine | None = None) -> subprocess.Popen[str]:
        words = [
            "gate",
            "--fresh",
            "--baseline",
            run_alone,
            "--agent",
            "tests.run.cluster_agent:Idle",
            "--arm",
            "none",
            "-k",
            SEEDS,
        ]
        words += ["--allow", "agent.kind", "--allow", "config.agent", "--allow", "scaffold"]
        asked = [*words, "--margin", "10", "--no-canary", "--json", "--no-calibration", "--ledger", f"{out}.ledger"]
        return aem(*asked, "--workers", "6", "--grade-workers", "2", "--out", out, *more, engine=engine)

    def decided(process: subprocess.Popen[str]) -> Any:
        printed, said = process.communicate(timeout=300)
        assert process.returncode in (0, 1, 2), said
        found = json.loads(printed)
        told = ("verdict", "rollouts", "order_digest", "difference", "lower", "upper", "missing", "path")
        return process.returncode, {name: found[name] for name in told}

    one = decided(gate(tmp_path / "here", engine=engines[0]))
    many = gate(tmp_path / "there", *sites(kind, request, engines))
    when(lambda: bool(engines[1].containers()))
    engines[1].kill()
    assert decided(many) == one
    for arm in ("slow", "none"):
        mine, theirs = results(tmp_path / "here" / arm), results(tmp_path / "there" / arm)
        common = mine.keys() & theirs.keys()
        assert common
        assert {key: mine[key] for key in common} == {key: theirs[key] for key in common}
    nothing_left([engines[0], engines[2]])


def test_a_ray_cluster_gives_the_results_of_one_engine_whatever_dies(
    rows_and_engines, engines, cluster, alone, tmp_path
) -> None:
    rows, out = rows_and_engines[0], tmp_path / "run"
    asked = command(rows, out, "--ray", cluster.address, latency=0.6)

    # The driver is killed, and the same command continues.
    first = subprocess.Popen(asked, env=environment(), stderr=subprocess.PIPE, text=True)
    when(lambda: (out / "journal.jsonl").exists() and len(list(read_journal(out))) >= 3)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finished = results(out)
    assert 0 < len(finished) < TASKS * SEEDS

    # A node is killed, with its engine, while the rest is run.
    second = subprocess.Popen(asked, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    before = len(begun(out))
    when(lambda: len(begun(out)) >= before + 3 and bool(engines[2].containers()))
    cluster.remove_node(cluster.members.pop(2), allow_graceful=False)
    engines[2].kill()
    printed, said = second.communicate(timeout=300)
    assert second.returncode == 0, said
    assert results(out) == alone, "nothing is lost, nothing is there twice"
    assert "is away" in said
    assert "raylet" not in printed + said, "what Ray reports is in the run's log"
    nothing_left(engines[:2])
    scratch = list(out.glob("rollouts/*/.*"))
    assert scratch == []
    report = json.loads((out / "report.json").read_text())
    assert report["completed_instances"] + report["empty_patch_instances"] == TASKS

    looked = ended(aem("doctor", "--ray", cluster.address, "--set", rows.name, folder=rows.parent))
    assert looked.count("a container starts") == 2
    assert looked.count("versions") == 2
    assert looked.count("dataset") == 1, "it is read by the driver alone, as by a run"
    assert "not the same on all nodes" not in looked
    both = ended(aem("doctor", *pool(engines[:2]), "--set", rows))
    assert both.count("a container starts") == 2
    assert f"there ({engines[0].address}: 1, {engines[1].address}: 1)" in both


OWN = 4_000_000  # bytes that each image has for itself


def images_of_their_own(rows: Path, engine: MoreEngine, at: Link, folder: Path) -> tuple[Path, dict[str, str], int]:
    """The rows with an image each, which the registry alone has; their ids by name, and the bytes that all share."""
    lines = [json.loads(line) for line in rows.read_text().splitlines()]
    client, base = engine.client(), lines[0]["image"]
    names: dict[str, str] = {}
    for n in range(len(lines)):
        path = f"aem/{base.rpartition('-')[2].partition(':')[0]}-{n}:1"
        context = folder / str(n)
        context.mkdir()
        (context / "own").write_bytes(os.urandom(OWN))
        (context / "Dockerfile").write_text(f"FROM {base}\nCOPY own /own\n")
        image, _ = client.images.build(path=str(context), tag=f"{at.address}/{path}", rm=True, forcerm=True)
        client.images.push(f"{at.address}/{path}")
        client.images.remove(f"{at.address}/{path}")
        names[f"registry.example.invalid/{path}"] = image.id
    shared = int(client.images.get(base).attrs["Size"])
    client.close()
    moved = folder / "rows.jsonl"
    changed = [{**row, "image": name} for row, name in zip(lines, names, strict=True)]
    moved.write_text("".join(json.dumps(row) + "\n" for row in changed))
    return moved, names, shared


def test_nodes_with_room_for_one_image_and_one_whose_registry_goes_away_lose_nothing(
    rows_and_engines, engines, cluster, mirrors, alone, tmp_path
) -> None:
    out = tmp_path / "run"

    def there(engine: MoreEngine) -> int:
        client = engine.client()
        try:
            return sum(bool({*(image.get("RepoTags") or ())} & {*names}) for image in client.api.images())
        finally:
            client.close()

    try:
        made = registry(tmp_path / "registry")
        with made as first:
            for link in mirrors:
                link.target = first.target
            rows, names, shared = images_of_their_own(rows_and_engines[0], engines[0], first, tmp_path)
            began = time.time()
            budget = ("--disk-budget", str(shared + int(1.5 * OWN)))
            asked = command(rows, out, "--ray", cluster.address, *budget, latency=0.6)
            running = subprocess.Popen(asked, env=environment(), stderr=subprocess.PIPE, text=True)
            when(lambda: there(engines[1]) > 0)
            mirrors[1].away()
            when(lambda: mirrors[1].refused > 0)
            since, most = time.monotonic(), 0
            while running.poll() is None:
                most = max(most, *(there(engine) for engine in engines))
                if time.monotonic() - since > 4:
                    mirrors[1].back()
            _, said = running.communicate()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert running.returncode == 0, said
    assert results(out) == alone, "nothing is lost, nothing is there twice"
    assert most == 1, "no node had room for two"
    removed = {one for engine in engines for one in removals(engine, began)}
    assert len(removed & {*names.values()}) >= len(names) - len(engines)
    assert len(begun(out)) == TASKS * SEEDS, "a registry that is away for seconds sends no work elsewhere"
    nothing_left(engines)


def removals(engine: MoreEngine, since: float) -> list[str]:
    """The ids of images that an engine has removed."""
    client = engine.client()
    try:
        seen = client.api.events(
            since=since, until=time.time(), decode=True, filters={"type": "image", "event": ["delete"]}
        )
        return [event["Actor"]["ID"] for event in seen]
    finally:
        client.close()
