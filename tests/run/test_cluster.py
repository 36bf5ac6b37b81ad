"""What travels between a Ray cluster's driver and its nodes, and what is said of nodes; no cluster is needed."""

import errno
import io
import pickle
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from aem_harness.api.sites import NODE, Recipe, Where, endpoints_here
from aem_harness.cli import app
from aem_harness.commands.options import where
from aem_harness.harness.doctor import _of_node, _same_images
from aem_harness.harness.errors import ConfigError, DiskFault, EnvironmentFault, ServerAway, SiteLost
from aem_harness.harness.grading import heldout
from aem_harness.harness.instances.load import load
from aem_harness.harness.run import cluster
from aem_harness.harness.run.auditing import CANARY, VARIANT
from aem_harness.harness.run.cluster import NodeInfo, packed, unpack
from aem_harness.harness.run.pool import Place, Pool
from aem_harness.harness.run.rollout import Worked


def test_a_rollouts_files_arrive_as_they_were_sent(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    files = {"patch.diff": b"\xff\x00 no text", "a__b-1.traj.json": b"{}" * 100_000, "test_output.txt": b""}
    for name, data in files.items():
        (there / name).write_bytes(data)
    unpack(packed(there), here)
    assert {path.name: path.read_bytes() for path in here.iterdir()} == files
    assert packed(there, without=set(files)) == packed(tmp_path / "there", without=set(files))
    (here / "patch.diff").write_bytes(b"mine")
    unpack(packed(there, without={"patch.diff"}), here)
    assert (here / "patch.diff").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["../outside", "below/it", "/outside"])
def test_a_file_that_would_land_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    blob = io.BytesIO()
    with tarfile.open(fileobj=blob, mode="w") as tar:
        tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(EnvironmentFault, match="a node sent"):
        unpack(blob.getvalue(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_fault_keeps_its_kind_on_its_way() -> None:
    worked = pickle.loads(pickle.dumps(Worked({"event": "rollout"}, ServerAway("gone"))))
    assert isinstance(worked.fault, ServerAway)
    assert str(pickle.loads(pickle.dumps(SiteLost("away")))) == "away"


def test_a_full_disk_of_a_node_is_the_nodes_and_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the whole run, or cost its rollouts: the driver's disk was well, so nothing waited."""

    def fails(_: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def ended(_: Path) -> Worked:
        return Worked({}, DiskFault("no space left"))

    monkeypatch.setattr(cluster, "full", lambda: "/tmp has 0 MiB left")
    assert [cluster._worked({}, work)[0] for work in (fails, ended)] == ["lost", "lost"]
    monkeypatch.setattr(cluster, "full", lambda: "")
    assert cluster._worked({}, ended)[0] == "done", "on a disk that is well it is the rollout's own"
    with pytest.raises(OSError, match="No space"):
        cluster._worked({}, fails)


class FakeNode:
    """A node of a cluster whose engine may be absent, or another node's."""

    def __init__(self, info: NodeInfo, engines: dict[str, str], log: list[str]) -> None:
        self.info, self.name, self.engine, self._engines, self._log = info, info.host, "", engines, log

    def start(self) -> None:
        self._log.append(f"start {self.name}")
        if self.name not in self._engines:
            raise EnvironmentFault("no engine answers")
        self.engine = self._engines[self.name]

    def images(self) -> set[str]:
        return set()

    def reap(self) -> int:
        self._log.append(f"reap {self.name}")
        return 0

    def kill(self) -> None:
        self._log.append(f"kill {self.name}")

    def close(self) -> None:
        self._log.append(f"close {self.name}")


def test_nodes_that_join_later_take_part_once_they_can_and_harm_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that shares an engine was ended in peace: that removed the containers of the run at work there."""
    monkeypatch.setattr(cluster, "AGAIN_SECONDS", 0.0)
    engines, log, said = {"a": "one", "b": "one"}, [], []

    def node(info: NodeInfo) -> FakeNode:
        return FakeNode(info, engines, log)

    nodes = [NodeInfo(name, "10.0.0.1", name) for name in "abc"]
    first = node(nodes[0])
    first.start()
    with Pool([Place(first, {"rollout": 1, "grade": 1})], {}, tell=said.append) as pool:
        joining = cluster.Joining(pool, node, {"rollout": 1, "grade": 1}, said.append)
        joining.look(nodes)
        joining.look(nodes)
        assert [place.site.name for place in pool.places] == ["a"]
        shared, absent = said  # each once
        assert "shares the engine" in shared
        assert "no engine answers" in absent
        assert log[1:] == 2 * ["start b", "kill b", "start c", "kill c"]
        engines["c"] = "three"
        joining.look(nodes)
        assert [place.site.name for place in pool.places] == ["a", "c"], "it had none, and has one now"
        assert said[-1] == "c has joined"


def test_an_agent_is_built_on_a_node_from_what_was_sent() -> None:
    tasks = {task.instance_id: task for task in load("tiny").tasks[:2]}
    recipe = pickle.loads(pickle.dumps(Recipe(agent="gold")))
    agent, release = recipe(tasks, "10.0.0.1")
    assert agent.name == "gold"
    release()


def test_options_that_make_no_sense_together_are_refused() -> None:
    with pytest.raises(ConfigError, match="--engine and --ray"):
        where(["ssh://a"], "auto")
    with pytest.raises(ConfigError, match="is a node of a Ray cluster"):
        endpoints_here(Where(), [f"http://{NODE}:8000/v1"], served=False)
    with pytest.raises(ConfigError, match="aem serve"):
        endpoints_here(Where(ray="auto"), [], served=True)
    assert endpoints_here(Where(ray="auto"), ["http://a:1/v1"], served=True) == ["http://a:1/v1"]


@pytest.mark.parametrize("option", [("--engine", "ssh://a"), ("--ray", "auto")])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("grade", "--logs", "logs"), "starts no container"),
        (("regrade", "RUN", "--quarantine", "out.txt"), "starts no container"),
        (("regrade", "RUN", "--release", "python3"), "starts no container"),
        (("audit", "--trajectories", "trajs"), "starts no container"),
        (("audit", "--make-variants", "--set", "tiny"), "only audits of run folders"),
        (("gate", "--from", "x.csv", "--baseline", "a", "--candidate", "b"), "are there already"),
    ],
)
def test_engines_for_work_that_starts_no_container_there_are_refused_and_nothing_is_done_here(
    tmp_path: Path, words: tuple[str, ...], said: str, option: tuple[str, str]
) -> None:
    (tmp_path / "run.json").write_text("{}")
    given = [str(tmp_path) if word == "RUN" else word for word in words]
    result = CliRunner().invoke(app, [*given, *option])
    assert isinstance(result.exception, ConfigError), result.output
    assert said in str(result.exception)
    assert f"remove {option[0]}" in str(result.exception)


@pytest.mark.parametrize(
    "words",
    [
        ("grade", "--logs", "logs"),
        ("regrade", "RUN", "--quarantine", "out.txt"),
        ("audit", "--trajectories", "trajs"),
        ("gate", "--from", "x.csv", "--baseline", "a", "--candidate", "b"),
    ],
    ids=" ".join,
)
def test_how_images_get_there_is_refused_where_none_is_used_unless_it_is_said_for_all_commands(
    tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run.json").write_text("{}")
    given = [str(tmp_path) if word == "RUN" else word for word in words]
    result = CliRunner().invoke(app, [*given, "--mirror", "http://here:5000", "--disk-budget", "9GB"])
    assert isinstance(result.exception, ConfigError), result.output
    assert "remove --disk-budget, --mirror" in str(result.exception)
    monkeypatch.setenv("AEM_IMAGE_MIRROR", "http://here:5000")
    assert "remove" not in str(CliRunner().invoke(app, given).exception)


def test_a_node_s_part_of_an_audit_is_what_the_driver_has_of_it(tmp_path: Path) -> None:
    """Variants are made on one machine, and a report may be missing: a node ended the audit, or found nothing."""
    task = load("tiny").tasks[0]
    (tmp_path / "patch.diff").write_text("x")
    asked: list[tuple[object, ...]] = []
    node = cluster.Node(NodeInfo("1", "10.0.0.1", "a"), None, None, 1)
    node._result = lambda folder, method, *arguments: asked.append((method, *arguments))  # type: ignore[method-assign]
    made = heldout.HeldOut(instance_id=task.instance_id, seed=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        heldout.keep(task, made)
        node.audit(task, tmp_path, VARIANT)
        node.audit(task, tmp_path)
    assert asked == [
        ("audit", task.instance_id, {"patch.diff": b"x"}, VARIANT, made),
        ("audit", task.instance_id, {"patch.diff": b"x"}, CANARY, None),
    ]


def test_a_node_with_another_grader_takes_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its verdicts would be another release's, in a run that says otherwise."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'aem-harness[ray]'")
    import ray

    monkeypatch.setattr(ray, "remote", lambda _: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=print)))
    node = cluster.Node(NodeInfo("1" * 56, "10.0.0.1", "a"), None, None, 1)
    about = {"versions": {**cluster.versions(), "grader": "swebench 4.1.0"}, "engine": "e", "images": set()}
    monkeypatch.setattr(node, "_ask", lambda *_, **__: about)
    with pytest.raises(EnvironmentFault, match=r"it has grader swebench 4\.1\.0, here swebench 5"):
        node.start()


def test_a_node_with_other_versions_is_a_problem_and_one_with_another_time_a_warning() -> None:
    ours = {"aem": "1.2", "grader": "swebench 5.0.2"}
    as_here = list(_of_node("n", ours, ours, 0.3))
    assert [finding.level for finding in as_here] == ["ok", "ok"]
    other = list(_of_node("n", ours, {**ours, "grader": "swebench 4.1.0"}, 7.0))
    assert [finding.level for finding in other] == ["problem", "warning"]
    assert "grader swebench 4.1.0, here swebench 5.0.2" in other[0].detail
    assert "7.0 s" in other[1].detail


def test_an_image_that_is_not_the_same_on_all_nodes_is_named() -> None:
    [same] = _same_images({"a": {"x": "1", "y": "2"}, "b": {"x": "1"}})
    assert (same.level, same.detail) == ("ok", "there (a: 2, b: 1)")
    [others] = _same_images({"a": {"x": "1"}, "b": {"x": "3"}})
    assert (others.level, "x" in others.detail) == ("warning", True)
