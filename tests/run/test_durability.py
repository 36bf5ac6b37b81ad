"""Power loss, truncation, deletion: nothing that was finished is lost, and nothing half-written is ever graded."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.config import RunConfig
from aem_harness.harness.errors import DataError
from aem_harness.harness.io import write_json
from aem_harness.harness.run.fsck import check
from aem_harness.harness.run.store import RunStore, read_journal, write_patch
from tests.run.disk import Disk
from tests.run.test_store import FACTS, KEYS, grade, open_store, rollout

PATCH = "diff --git a/x b/x\n" + "+a line\n" * 60
LOG = "test_output.txt"


def roll(store: RunStore, key: tuple[str, int], **event) -> None:
    """A finished rollout with its patch and its trajectory."""
    scratch = store.scratch(*key)
    write_patch(scratch / "patch.diff", PATCH)
    write_json(scratch / f"{key[0]}.traj.json", {"messages": []})
    store.finish_rollout(scratch, {**rollout(*key), "patch_bytes": len(PATCH), **event})


def judge(store: RunStore, key: tuple[str, int], **event) -> None:
    folder = store.rollout_folder(*key)
    (folder / LOG).write_text("PASSED test_a\n")
    (folder / "report.json").write_text("{}")
    store.finish_grade({**grade(*key), **event})


def finished(folder: Path) -> RunStore:
    """A run with one graded rollout, one that waits for its grade, and a lost one."""
    with open_store(folder) as store:
        for key in KEYS[:2]:
            roll(store, key)
        judge(store, KEYS[0])
        roll(store, KEYS[2], fault={"boundary": "policy", "message": "gone"})
    return store


def test_the_journal_carries_the_hash_of_every_file_of_a_rollout_and_of_its_grading(tmp_path):
    finished(tmp_path / "r")
    first, _, graded, _ = read_journal(tmp_path / "r")
    assert set(first["files"]) == {"patch.diff", f"{KEYS[0][0]}.traj.json"}
    assert set(graded["files"]) == {LOG, "report.json"}
    assert first["files"]["patch.diff"]["bytes"] == len(PATCH)
    assert all(len(file["sha256"]) == 64 for event in (first, graded) for file in event["files"].values())


@pytest.mark.parametrize("keep", [0, 5])
@pytest.mark.parametrize("name", ["patch.diff", f"{KEYS[0][0]}.traj.json"])
@pytest.mark.parametrize("key", KEYS[:2])
def test_a_rollout_with_a_truncated_file_is_done_again_and_never_graded(tmp_path, key, name, keep):
    finished(tmp_path / "r")
    path = tmp_path / "r" / "rollouts" / key[0] / str(key[1]) / name
    path.write_bytes(path.read_bytes()[:keep])
    with open_store(tmp_path / "r") as store:
        pending = store.pending([key])
        assert pending.rollouts == [(*key, 1)]
        assert pending.grades == []
        assert name in store.damaged[key]
        roll(store, key, attempt=1)
        judge(store, key, attempt=1)
    with open_store(tmp_path / "r") as store:
        assert store.damaged == {}
        assert store.pending([key]) == store.pending([])
        assert store.rollout_folder(*key).with_name(f"{key[1]}.attempt0").is_dir()  # the damaged one is kept


@pytest.mark.parametrize("name", [LOG, "report.json"])
def test_a_grading_with_a_truncated_file_is_done_again_and_its_rollout_is_not(tmp_path, name):
    finished(tmp_path / "r")
    (tmp_path / "r" / "rollouts" / KEYS[0][0] / str(KEYS[0][1]) / name).write_text("")
    with open_store(tmp_path / "r") as store:
        assert store.pending(KEYS[:2]).rollouts == []
        assert store.pending(KEYS[:1]).grades == KEYS[:1]


@pytest.mark.parametrize("name", ["rollout.json", "grade.json"])
def test_the_journal_outlives_the_copies_of_its_lines_beside_the_files(tmp_path, name):
    finished(tmp_path / "r")
    (tmp_path / "r" / "rollouts" / KEYS[0][0] / str(KEYS[0][1]) / name).write_text('{"event": "ro')
    with open_store(tmp_path / "r") as store:
        assert store.pending(KEYS[:1]) == store.pending([])


def test_changed_content_of_the_same_length_is_found_before_grading(tmp_path):
    finished(tmp_path / "r")
    path = tmp_path / "r" / "rollouts" / KEYS[1][0] / str(KEYS[1][1]) / "patch.diff"
    with open_store(tmp_path / "r") as store:
        path.write_bytes(b"\0" * len(PATCH))  # as file systems leave it that had the length on disk, not the content
        with pytest.raises(DataError, match=r"patch\.diff has changed"):
            store.patch(*KEYS[1])
    with open_store(tmp_path / "r") as store:
        assert store.pending([KEYS[1]]).rollouts == [(*KEYS[1], 1)]


def test_a_deleted_rollout_is_done_again(tmp_path):
    finished(tmp_path / "r")
    for key in KEYS[:2]:
        shutil.rmtree(tmp_path / "r" / "rollouts" / key[0] / str(key[1]))
    with open_store(tmp_path / "r") as store:
        assert store.pending(KEYS[:2]).rollouts == [(*KEYS[0], 1), (*KEYS[1], 1)]


def test_a_patch_shorter_than_an_old_journal_says_is_not_graded(tmp_path):
    finished(tmp_path / "r")
    journal = tmp_path / "r" / "journal.jsonl"
    events = [{k: v for k, v in event.items() if k != "files"} for event in read_journal(tmp_path / "r")]
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))
    with open_store(tmp_path / "r") as store:
        assert store.damaged == {}
    (tmp_path / "r" / "rollouts" / KEYS[1][0] / str(KEYS[1][1]) / "patch.diff").write_text("")
    with open_store(tmp_path / "r") as store:
        assert store.pending([KEYS[1]]).rollouts == [(*KEYS[1], 1)]


def test_whenever_the_power_goes_what_was_acknowledged_is_whole_and_nothing_half_is_graded(tmp_path, monkeypatch):
    root = tmp_path / "r"
    root.mkdir()
    disk = Disk(root, monkeypatch)
    acknowledged: list[tuple[int, tuple[str, int], str]] = []  # what was promised after how many syncs
    with disk.listening(), RunStore(root, RunConfig(arm="a", agent="gold"), FACTS) as store:
        for key in KEYS[:3]:
            roll(store, key)
            acknowledged.append((disk.syncs, key, "rollout"))
            judge(store, key)
            acknowledged.append((disk.syncs, key, "grade"))
    assert disk.syncs > 30
    for sync in range(acknowledged[0][0] - 1, disk.syncs):
        for names_survive in (False, True):
            copy = disk.after(sync, tmp_path / f"{sync}{names_survive}" / "r", names_survive=names_survive)
            with RunStore(copy, RunConfig(arm="a", agent="gold"), FACTS) as store:
                for promised, key, what in acknowledged:
                    if promised - 1 <= sync:
                        assert key in store.progress, (sync, names_survive, key)
                        assert what == "rollout" or store.progress[key].grade
                for key in store.progress:
                    assert store.patch(*key) == PATCH
    disk.close()


# --- aem fsck -------------------------------------------------------------------------------------------------------


def fsck(folder: Path, *options: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["fsck", str(folder), *options])
    return result.exit_code, result.output


def test_fsck_finds_a_sound_run_sound_and_says_what_is_to_do(tmp_path):
    finished(tmp_path / "r")
    before = (tmp_path / "r" / "journal.jsonl").read_bytes()
    assert check(tmp_path / "r").sound
    code, said = fsck(tmp_path / "r")
    assert code == 0
    assert "2 complete rollouts, 1 of them graded" in said
    assert "to do: 3 rollouts not run yet" in said
    assert "to do: 1 gradings" in said
    assert "to do: 1 lost to infrastructure" in said
    assert (tmp_path / "r" / "journal.jsonl").read_bytes() == before


def test_a_journal_with_a_damaged_line_names_fsck_which_rebuilds_it(tmp_path):
    finished(tmp_path / "r")
    journal = tmp_path / "r" / "journal.jsonl"
    whole = list(read_journal(tmp_path / "r"))
    journal.write_text("{broken\n" + "\n".join(journal.read_text().split("\n")[1:]))
    with pytest.raises(DataError, match="aem fsck"):
        open_store(tmp_path / "r")
    assert fsck(tmp_path / "r", "--dry-run")[0] == 3
    assert "{broken" in journal.read_text()
    code, said = fsck(tmp_path / "r")
    assert code == 0
    assert "line 1" in said
    assert "kept as journal.jsonl.damaged" in said
    assert sorted(map(str, read_journal(tmp_path / "r"))) == sorted(map(str, whole))
    with open_store(tmp_path / "r") as store:
        assert store.pending(KEYS[:1]) == store.pending([])


def test_fsck_rebuilds_a_missing_journal(tmp_path):
    progress = finished(tmp_path / "r").progress
    (tmp_path / "r" / "journal.jsonl").unlink()
    assert fsck(tmp_path / "r")[0] == 0
    with open_store(tmp_path / "r") as store:
        assert store.progress == progress


def test_fsck_finds_changed_content_and_the_run_does_it_again(tmp_path):
    finished(tmp_path / "r")
    log = tmp_path / "r" / "rollouts" / KEYS[0][0] / str(KEYS[0][1]) / LOG
    log.write_text(log.read_text().replace("PASSED", "FAILED"))
    code, said = fsck(tmp_path / "r")
    assert code == 3
    assert f"{KEYS[0][0]} seed {KEYS[0][1]}: the grading is done again: {LOG} has changed" in said
    assert "to do: 1 damaged" in said
    with open_store(tmp_path / "r") as store:
        assert store.pending(KEYS[:1]).grades == KEYS[:1]


def test_fsck_of_something_else_is_a_usage_error(tmp_path):
    result = CliRunner().invoke(app, ["fsck", str(tmp_path)])
    assert isinstance(result.exception, DataError)


def test_folders_of_rollouts_can_be_read_by_colleagues(tmp_path):
    store = finished(tmp_path / "r")
    folder = store.rollout_folder(*KEYS[0])
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777
