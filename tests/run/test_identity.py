"""The label by which containers belong to a run: what carries another run's is removed from under its agents."""

import json
import shutil

from aem_harness.harness.config import RunConfig
from aem_harness.harness.run.identity import Identity
from aem_harness.harness.sandbox.reaping import RUN


def run(folder):
    folder.mkdir(parents=True)
    facts = {
        "run_id": folder.name,
        "created_at": "2026-11-30T05:03:08+00:00",
        "config": RunConfig(arm="a").model_dump(),
        "dataset": {"digest": "d"},
    }
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def label(folder):
    return Identity.of(folder).labels[RUN]


def test_runs_of_one_name_that_began_in_the_same_second_are_two(tmp_path):
    assert label(run(tmp_path / "monday" / "base")) != label(run(tmp_path / "tuesday" / "base"))


def test_a_copy_of_a_run_is_another_run(tmp_path):
    folder = run(tmp_path / "base")
    shutil.copytree(folder, tmp_path / "copies" / "base")
    assert label(folder) != label(tmp_path / "copies" / "base")


def test_a_run_that_is_continued_is_the_same_also_from_elsewhere(tmp_path, monkeypatch):
    folder = run(tmp_path / "base")
    known = label(folder)
    (tmp_path / "mounted").symlink_to(tmp_path)
    assert label(tmp_path / "mounted" / "base") == known
    monkeypatch.chdir(folder.parent)
    assert label(type(folder)("base")) == known
