"""What comes from outside is bounded when it is unpacked, and shown as text when it is printed."""

import gzip
import json
import zipfile
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from aem_harness.harness import io
from aem_harness.harness.errors import DataError
from aem_harness.harness.interop import inspect_log
from aem_harness.harness.io import read_bytes
from aem_harness.harness.report.show import rollout_view


def test_a_gzipped_file_is_unpacked_up_to_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "preds.json.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    assert read_bytes(path) == b"x" * 1000
    monkeypatch.setattr(io, "MOST_UNPACKED", 999)
    with pytest.raises(DataError, match="unpacks to more than"):
        read_bytes(path)


def test_a_member_of_a_zipped_log_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", json.dumps({"eval": {}, "words": "x" * 1000}))
    monkeypatch.setattr(inspect_log, "MOST_UNPACKED", 999)
    with pytest.raises(DataError, match="unpacks to more than"):
        inspect_log._eval_file(path)


def test_control_sequences_of_model_and_grader_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    escape = "\x1b]0;title\x07\x1b[2Jgone"
    run, name = tmp_path / "r", "a__b-1"
    folder = run / "rollouts" / name / "0"
    folder.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"run_id": "r", "arm": "a"}))
    fault = {"boundary": "policy", "message": f"said {escape}"}
    rollout = {"instance_id": name, "seed": 0, "exit_status": "fault", "reason": escape, "fault": fault, "attempt": 0}
    (folder / "rollout.json").write_text(json.dumps({"event": "rollout", **rollout}))
    grade = {"event": "grade", "instance_id": name, "seed": 0, "attempt": 0, "outcome": "unresolved", "cause": escape}
    (folder / "grade.json").write_text(json.dumps(grade))
    (folder / "patch.diff").write_text(f"+{escape}\n")
    messages = [{"role": "assistant", "content": escape, "extra": {}}]
    document = {"info": {"exit_status": "x", "submission": ""}, "messages": messages}
    (folder / f"{name}.traj.json").write_text(json.dumps(document))
    console = Console(width=100, record=True, file=StringIO())
    console.print(rollout_view(run, name, 0))
    text = console.export_text()
    assert "gone" in text
    assert "\x1b" not in text
    assert "\x07" not in text
