"""What checkpoints are measured on is recognised whatever it is called, and everything else is not."""

import json
from pathlib import Path

import pytest

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.instances.load import load_tasks
from aem_harness.training import guard
from aem_harness.training.guard import KINDS, certify, overlaps, project_of
from aem_harness.training.tasks import tasks as bug_fixes

# One published row of SWE-bench Verified, by its public identifiers.
KNOWN = {"instance_id": "astropy__astropy-12907", "repo": "astropy/astropy"}
COMMIT = "d16bfe05a744909de4b27f5875fe0d4ed41ce607"


@pytest.fixture
def task():
    return load_tasks("sample")[0]


def row(task, **changes):
    return task.model_copy(update={"instance": task.instance.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("changes", "by"),
    [
        ({"instance_id": KNOWN["instance_id"]}, "instance id"),
        ({"instance_id": " ASTROPY__astropy-12907 "}, "instance id"),
        ({"repo": KNOWN["repo"], "base_commit": COMMIT}, "repository and base commit"),
        ({"repo": "someone/Astropy.git", "base_commit": COMMIT.upper()}, "repository and base commit"),
        ({"repo": "https://github.com/astropy/astropy.git/", "base_commit": COMMIT}, "repository and base commit"),
        ({"repo": "acme/starlib", "base_commit": COMMIT}, "repository and base commit"),
        ({"repo": "", "base_commit": COMMIT}, "repository and base commit"),
        ({"repo": "swesmith/astropy__astropy.d16bfe05", "base_commit": COMMIT[:8]}, "repository and base commit"),
    ],
)
def test_a_measured_row_is_recognised_under_any_name(task, changes, by):
    (found,) = overlaps([row(task, **changes).instance])
    assert (found.by, found.measured) == (by, "SWE-bench Verified")
    with pytest.raises(ConfigError, match=rf"SWE-bench Verified.*the same {by}"):
        certify([task, row(task, **changes)])


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_id": "astropy__astropy-12907-of-another-kind"},
        {"repo": KNOWN["repo"], "base_commit": "0" * 40},
        {"repo": "django/django", "base_commit": COMMIT},
        {"repo": KNOWN["repo"], "base_commit": ""},
    ],
)
def test_other_rows_are_not(task, changes):
    assert overlaps([row(task, **changes).instance]) == []


def test_every_published_row_is_recognised_by_each_of_its_marks():
    import gzip
    from types import SimpleNamespace

    file = Path(__file__).parents[3] / "shared" / "data" / "swe-bench-verified.jsonl.gz"
    if not file.is_file():
        pytest.skip("the published rows of SWE-bench Verified are not on this machine")
    fields = ("instance_id", "repo", "base_commit", "problem_statement")
    with gzip.open(file, "rt") as lines:
        rows = [{name: one[name] for name in fields} for one in map(json.loads, lines)]
    hidden = {"instance_id": "x", "repo": "", "base_commit": "", "problem_statement": ""}
    for kind, kept in zip(KINDS, (fields[:1], fields[1:3], fields[3:]), strict=True):
        disguised = [SimpleNamespace(**{**hidden, **{name: one[name] for name in kept}}) for one in rows]
        found = overlaps(disguised)
        assert len(found) == 500
        assert {one.by for one in found} == {kind}


def test_further_held_out_sets_are_compared_by_the_same_marks(task):
    renamed = row(task, instance_id="renamed__x-1")
    assert overlaps([renamed.instance]) == []
    (found,) = overlaps([renamed.instance], {"nightly": [task.instance]})
    assert found.measured == "nightly"
    assert certify([task])["rows"] == 1


def test_the_certificate_changes_with_any_row(task):
    first, second = (certify([row(task, problem_statement=text)])["rows_digest"] for text in ("a", "b"))
    assert first != second


@pytest.mark.parametrize(
    ("repo", "project"),
    [
        ("django/django", "django"),
        ("swesmith/oauthlib__oauthlib.1fd52536", "oauthlib"),
        ("orange3", "orange3"),
        ("", ""),
    ],
)
def test_a_projects_own_name(repo, project):
    assert project_of(repo) == project


def test_generated_tasks_of_held_out_shapes_are_refused():
    drawn = list(bug_fixes("train", seed=0, count=3))
    assert guard.certify_bug_fixes(drawn)["rows"] == 3
    with pytest.raises(ConfigError, match="has the shape of a held-out function"):
        guard.certify_bug_fixes([*drawn, *bug_fixes("test", seed=0, count=1)])
