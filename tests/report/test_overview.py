"""The page over all runs: rates in order of time, the newest comparison, gates, and what each day cost."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import DataError
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.report.overview import build_overview, came_back, days, gates, newest_comparison, read_all
from aem_harness.harness.run.store import RunStore, write_patch

TASKS = [f"repo__project-{n}" for n in range(4)]


def run(folder: Path, arm: str, day: int, resolved: set[int], *, lost: int = -1) -> Path:
    """A finished run of four tasks, of which those numbered `resolved` are, on the given day of November."""
    at = f"2026-11-{day:02}T03:00:00+00:00"
    facts = {
        "plan": {"instances": TASKS, "seeds": 1}, "agent": {"kind": "bash"}, "versions": {"swebench": "5.0.2"},
        "dataset": {"name": "verified", "digest": "d"},
        "tasks": {name: {"repo": "repo/project"} for name in TASKS},
    }  # fmt: skip
    with RunStore(folder, RunConfig(arm=arm, agent="bash", dataset="verified"), facts) as store:
        for number, name in enumerate(TASKS):
            scratch = store.scratch(name, 0)
            write_patch(scratch / "patch.diff", "x")
            fault = {"boundary": "environment", "message": "gone"} if number == lost else None
            event = {
                "event": "rollout", "instance_id": name, "seed": 0, "attempt": 0, "exit_status": "submitted",
                "fault": fault, "at": at, "completion_tokens": 100, "seconds": 1800.0, "reason": "", "patch_bytes": 1,
            }  # fmt: skip
            store.finish_rollout(scratch, event)
            if fault is None:
                outcome = "resolved" if number in resolved else "unresolved"
                common = {"event": "grade", "instance_id": name, "seed": 0, "attempt": 0, "at": at}
                store.finish_grade(common | {"outcome": outcome, "cause": "", "seconds": 1.0, "versions": {}})
    write_json(folder / "run.json", read_json(folder / "run.json") | {"created_at": at})
    return folder


@pytest.fixture
def nights(tmp_path: Path) -> Path:
    """Three nights: one task is lost and comes back, one rollout has no verdict; and a gate's state file."""
    root = tmp_path / "results"
    run(root / "step-50", "step-50", 1, {0, 1})
    run(root / "step-100", "step-100", 2, {0})
    run(root / "step-150", "step-150", 3, {0, 1, 2}, lost=3)
    gate = {"number": 1, "candidate": "step-100", "verdict": "BLOCK", "rollouts": 44, "difference": -0.081}
    write_json(root / "nightly.json", {"gates": [gate | {"at": "2026-11-02T04:00:00+00:00"}]})
    write_json(root / "other.json", [1, 2])
    return root


def test_the_newest_run_is_compared_with_the_one_before_it(nights):
    states, problems = read_all([nights])
    assert [state.folder.name for state in states] == ["step-50", "step-100", "step-150"]
    assert problems == []
    found = newest_comparison(states)
    assert found is not None
    assert "step-150" in found["sentence"]
    assert "step-100" in found["sentence"]
    assert newest_comparison(states[:1]) is None


def test_a_task_that_came_back_is_named_and_a_lost_rollout_is_no_change(nights):
    states, _ = read_all([nights])
    assert [(one["task"], one["verdicts"]) for one in came_back(states)] == [(TASKS[1], [True, False, True])]


def test_each_day_says_what_it_cost_and_what_it_lost(nights):
    states, _ = read_all([nights])
    newest, *_, oldest = days(states)
    assert (newest.date, newest.rollouts, newest.lost, newest.tokens, newest.hours) == ("2026-11-03", 4, 1, 400, 2.0)
    assert (oldest.date, oldest.lost) == ("2026-11-01", 0)


def test_gates_are_read_from_their_state_files_and_other_files_are_left_alone(nights):
    (gate,) = gates([nights])
    assert (gate["candidate"], gate["verdict"], gate["tone"], gate["file"]) == (
        "step-100", "BLOCK", "bad", "nightly.json",
    )  # fmt: skip


def test_the_page_asks_for_nothing_from_elsewhere_and_names_every_run(nights):
    page, _ = build_overview([nights])
    assert "default-src 'none'" in page
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", page)
    assert all(name in page for name in ("step-50", "step-100", "step-150", "BLOCK", TASKS[1]))


def test_a_dagger_of_an_interval_is_explained_on_the_page(nights):
    page, _ = build_overview([nights])
    found = newest_comparison(read_all([nights])[0])
    assert found is not None
    assert "†" in found["sentence"]
    assert page.count("† From an upper bound") == 1


def test_a_damaged_run_is_named_and_hides_nothing(nights):
    (nights / "broken").mkdir()
    (nights / "broken" / "run.json").write_text("{")
    page, problems = build_overview([nights])
    assert len(problems) == 1
    assert "broken" in page
    assert "step-150" in page
    with pytest.raises(DataError, match="no runs in"):
        build_overview([nights / "nothing"])


def test_the_command_writes_it(nights, tmp_path):
    done = CliRunner().invoke(app, ["report", str(nights), "--overview", "--out", str(tmp_path / "o.html")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "o.html").read_text().startswith("<!doctype html>")


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_a_phone_and_a_desk(nights, tmp_path, width):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("no chromium")
    page, _ = build_overview([nights])
    seen = "<script>document.title = String(document.documentElement.scrollWidth - innerWidth)</script>"
    (tmp_path / "o.html").write_text(page.replace("style-src", "script-src 'unsafe-inline'; style-src") + seen)
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    words = [browser, *flags.split(), "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    words += [f"--window-size={max(width, 500)},900", (tmp_path / "o.html").as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    title = re.search(r"<title>(-?\d+)</title>", done.stdout)
    assert title
    assert int(title[1]) <= 0
