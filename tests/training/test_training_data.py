"""`aem data`: what is measured and what does not work is dropped, by name and count; the rest is certified."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner
from unidiff import PatchSet

from aem_harness.api import training_data
from aem_harness.api.grading import How
from aem_harness.api.training_data import prepare
from aem_harness.cli import app
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.instances.load import load_tasks
from aem_harness.harness.instances.training_sets.patches import reversed_patch
from aem_harness.harness.sandbox.container import Sandbox
from aem_harness.harness.types import Task
from aem_harness.training.guard import certificate_of
from tests.instances.published import SWE_GYM, SWE_SMITH, nemo_gym, r2e_gym

MEASURED = {
    **SWE_SMITH,
    "instance_id": "astropy__astropy.d16bfe05.func__1",
    "repo": "swesmith/astropy__astropy.d16bfe05",
}


def rows(path: Path, *of: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in of))
    return str(path)


def dropped(folder: Path) -> dict[str, str]:
    return {row["instance_id"]: row["reason"] for row in map(json.loads, (folder / "dropped.jsonl").open())}


def test_every_row_is_accounted_for_and_what_is_measured_is_named(tmp_path):
    source = rows(tmp_path / "in.jsonl", SWE_GYM, MEASURED, SWE_SMITH, {**SWE_GYM, "version": "99"})
    prepared = prepare(source, tmp_path / "out", validate=False)
    certificate = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert certificate["read"] == 4 == certificate["rows"] + sum(certificate["dropped"].values())
    assert certificate["dropped"] == {"bad row": 1, "measured by SWE-bench Verified": 1}
    assert dropped(tmp_path / "out")[MEASURED["instance_id"]] == "measured by SWE-bench Verified"
    assert (certificate["validated"], prepared.exit_code) == (False, 0)


def test_a_held_out_set_of_ones_own_is_kept_apart_too(tmp_path):
    held = rows(tmp_path / "held.jsonl", SWE_GYM)
    renamed = {**SWE_GYM, "instance_id": "another-name"}
    prepared = prepare(
        rows(tmp_path / "in.jsonl", renamed, SWE_SMITH), tmp_path / "out", held_out=[held], validate=False
    )
    assert [one.reason for one in prepared.dropped] == [f"measured by {held}"]


def test_a_held_out_row_that_cannot_be_read_is_an_error_as_nothing_could_be_kept_apart_from_it(tmp_path):
    held = rows(tmp_path / "held.jsonl", SWE_SMITH, {**SWE_GYM, "version": "99"})
    with pytest.raises(DataError, match=r"held\.jsonl row 2.*99"):
        prepare(rows(tmp_path / "in.jsonl", SWE_GYM), tmp_path / "out", held_out=[held], validate=False)


def test_a_row_of_a_measured_project_whose_base_is_not_known_is_not_let_through_untried(tmp_path):
    source = rows(tmp_path / "in.jsonl", r2e_gym(repo_name="sympy"), r2e_gym())
    prepared = prepare(source, tmp_path / "out", validate=False)
    assert [(one.instance_id, one.reason) for one in prepared.dropped] == [
        ("sympy-" + "cd" * 20, "base commit unknown")
    ]


def test_a_row_whose_base_is_not_known_is_not_certified_as_published_either(tmp_path):
    source = rows(tmp_path / "in.jsonl", r2e_gym(), r2e_gym(repo_name="sympy"))
    with pytest.raises(ConfigError, match=r"sympy-.*names the commit of its fix.*aem data prepare"):
        certificate_of(source, load_tasks(source))


def test_the_certificate_is_of_the_rows_beside_it_and_goes_with_them(tmp_path):
    prepare(rows(tmp_path / "in.jsonl", nemo_gym(SWE_GYM), SWE_SMITH), tmp_path / "out", validate=False)
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    file = moved / "rows.jsonl"
    assert [Path(task.dockerfile).parent for task in load_tasks(file) if task.dockerfile] == [moved / "images"]
    assert certificate_of(str(file), load_tasks(file))["source"]["name"] == "in.jsonl"
    shown = CliRunner().invoke(app, ["data", "show", str(moved)])
    assert "rows_digest" in shown.output
    file.write_text(file.read_text().splitlines()[0] + "\n")
    with pytest.raises(ConfigError, match="not of these rows: run aem data prepare again"):
        certificate_of(str(file), load_tasks(file))


def test_where_nothing_is_left_it_says_so_and_writes_why(tmp_path):
    with pytest.raises(DataError, match="no row is left of 1"):
        prepare(rows(tmp_path / "in.jsonl", MEASURED), tmp_path / "out", validate=False)
    assert dropped(tmp_path / "out") == {MEASURED["instance_id"]: "measured by SWE-bench Verified"}


# --- in containers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bundled() -> Task:
    return next(task for task in load_tasks("sample") if task.instance_id == "aem-sample__calx-9")


@pytest.fixture
def published(engine, bundled, unique) -> Iterator[dict[str, str]]:
    """Images as SWE-smith and R2E-Gym publish them, of a bundled repository; removed with what was made of them."""
    import docker

    from aem_harness.harness.sandbox.build import build
    from aem_harness.harness.sandbox.images import ensure_image

    ensure_image(bundled)
    parent, tag = bundled.instance.image, unique("published")
    names = {"smith": f"aem-test/smith:{tag}", "r2e": f"aem-test/r2e:{tag}", "tag": tag}
    patches = {"gold.patch": bundled.patch.encode(), "test.patch": bundled.test_patch.encode()}
    commit = "git -c user.name=t -c user.email=t@localhost commit -qam after"
    head = f"FROM {parent}\nCOPY *.patch /tmp/\n"
    smith = head + f"RUN git apply /tmp/gold.patch /tmp/test.patch && {commit} && rm /tmp/*.patch\n"
    run_tests = b"source /opt/miniconda3/bin/activate testbed\npython -W ignore -m pytest -rA r2e_tests\n"
    r2e = f"FROM {parent}\nCOPY run_tests.sh /testbed/\nRUN mkdir /r2e_tests && touch /r2e_tests/test_1.py\n"
    build(names["smith"], {"Dockerfile": smith.encode(), **patches}, parent)
    build(names["r2e"], {"Dockerfile": r2e.encode(), "run_tests.sh": run_tests}, parent)
    yield names
    client = docker.from_env()
    for image in client.api.images():
        for name in image["RepoTags"] or ():
            if tag in name:
                client.images.remove(name, force=True)


def smith_row(task: Task, image: str, name: str) -> dict:
    return {
        "instance_id": name,
        "repo": "swesmith/aem-sample__calx.bac68061",
        "image_name": image,
        "patch": reversed_patch(task.patch),
        "problem_statement": task.instance.problem_statement,
        "FAIL_TO_PASS": list(task.fail_to_pass),
        "PASS_TO_PASS": list(task.pass_to_pass),
    }


def r2e_row(task: Task, image: str, name: str) -> dict:
    (file,) = PatchSet(task.patch)
    kinds = {" ": "context", "+": "added", "-": "deleted"}
    hunks = [
        {
            "descriptor": {
                "old_range": {"start": hunk.source_start, "length": hunk.source_length},
                "new_range": {"start": hunk.target_start, "length": hunk.target_length},
                "section": hunk.section_header,
            },
            "line_group": {
                "all_lines": [{"type": kinds[line.line_type], "content": line.value.rstrip("\n")} for line in hunk]
            },
        }
        for hunk in file
    ]
    diff = {
        "header": {"file": {"path": file.path}},
        "minus_file": {"path": file.source_file},
        "plus_file": {"path": file.target_file},
        "hunks": hunks,
    }
    short = lambda tests: [test.partition("::")[2] for test in tests]  # noqa: E731
    failing, passing = short(task.fail_to_pass), short(task.pass_to_pass)
    summary = [f"FAILED r2e_tests/test_1.py::{name} - no" for name in failing]
    summary += [f"PASSED r2e_tests/test_1.py::{name}" for name in passing]
    source = Path(task.dockerfile) / "projects/calx/tests/test_evaluate.py"
    added = "\n".join(
        line.value.rstrip("\n") for hunk in PatchSet(task.test_patch)[0] for line in hunk if line.is_added
    )
    execution = {
        "test_file_codes": [source.read_text().partition("def test_too_many_arguments")[0] + added]
        if "def test_too_many_arguments" not in source.read_text()
        else [source.read_text()],
        "test_file_names": ["test_1.py"],
        "old_commit_res_stdout": "== short test summary info ==\n" + "\n".join(summary),
    }
    return r2e_gym(
        repo_name=name,
        docker_image=image,
        parsed_commit_content=json.dumps({"file_diffs": [diff]}),
        execution_result_content=json.dumps(execution),
        expected_output_json=json.dumps(dict.fromkeys(failing + passing, "PASSED")),
        problem_statement=f"[ISSUE]{task.instance.problem_statement}[/ISSUE]",
    )


@pytest.mark.docker
@pytest.mark.slow
@pytest.mark.extended
def test_rows_are_tried_in_containers_and_only_those_that_the_gold_patch_alone_resolves_are_kept(
    tmp_path, published, bundled
):
    """One bundled fix as SWE-smith and R2E-Gym publish it; a bug that no test sees; a test that is not there."""
    tag = published["tag"]
    good = smith_row(bundled, published["smith"], f"good-{tag}")
    harmless = {
        **smith_row(bundled, published["smith"], f"harmless-{tag}"),
        "patch": "diff --git a/x.md b/x.md\nnew file mode 100644\n--- /dev/null\n+++ b/x.md\n@@ -0,0 +1 @@\n+x\n",
    }
    unknown = {
        **smith_row(bundled, published["smith"], f"unknown-{tag}"),
        "FAIL_TO_PASS": ["tests/test_evaluate.py::no"],
    }
    r2e = r2e_row(bundled, published["r2e"], f"r2e-{tag}")
    source = rows(tmp_path / "in.jsonl", good, harmless, unknown, r2e)
    prepared = prepare(source, tmp_path / "out", how=How(workers=2))
    assert prepared.pending == {}
    assert [task.instance_id for task in prepared.kept] == [f"good-{tag}", f"r2e-{tag}-{'cd' * 20}"]
    assert {one.instance_id: one.reason for one in prepared.dropped} == {
        f"harmless-{tag}": "an unchanged tree resolves",
        f"unknown-{tag}": "gold does not resolve",
    }
    certificate = prepared.certificate
    assert (certificate["gold"], certificate["unchanged"]) == (
        {"resolved": 3, "unresolved": 1},
        {"resolved": 1, "unresolved": 3},
    )
    (of_r2e,) = [task for task in load_tasks(tmp_path / "out/rows.jsonl") if task.instance_id.startswith("r2e-")]
    assert of_r2e.instance.base_commit == bundled.instance.base_commit, "the image's commit, not that of the fix"
    # An agent finds neither the fix in the history nor the tests of R2E-Gym.
    from aem_harness.harness.sandbox.container import Sandbox

    with Sandbox(prepared.kept[0].instance.image, workdir="/testbed") as box:
        seen = box.execute("git log --all --oneline | wc -l; git log --format=%s -1; git diff HEAD --stat")
        assert "max" not in box.execute("git log --all -p -1 -- src/calx/functions.py | grep '^-.*most is None'").output
        assert "base" in seen.output
    with Sandbox(prepared.kept[1].instance.image, workdir="/testbed") as box:
        assert box.execute("ls /r2e_tests /testbed/r2e_tests /root/r2e_tests").returncode != 0
    # The same command again grades nothing again.
    before = (tmp_path / "out/validation/gold/journal.jsonl").read_bytes()
    assert prepare(source, tmp_path / "out").certificate == certificate
    assert (tmp_path / "out/validation/gold/journal.jsonl").read_bytes() == before


def test_an_interrupt_while_base_commits_are_read_ends_what_is_under_way(monkeypatch):
    """It waited for every image that was still to be pulled."""
    ended, begun = threading.Event(), threading.Event()

    def read(task: str) -> tuple[str, str]:
        if task == "interrupted":
            begun.wait(60)
            raise KeyboardInterrupt
        begun.set()
        assert ended.wait(60), "nobody ended it"
        return task, ""

    monkeypatch.setattr(training_data, "_with_base", read)
    monkeypatch.setattr(Sandbox, "close_all", staticmethod(ended.set))
    with pytest.raises(KeyboardInterrupt):
        training_data._with_bases(["interrupted", "under way", "queued"], 2, {})
