"""Whose a container is, on an engine that several machines use; no engine is needed."""

from pathlib import Path

import pytest

from aem_harness.harness.sandbox import reaping


def test_a_container_of_another_machine_of_the_same_name_is_not_taken_for_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process number is free here, or another program's: its live container was removed."""
    monkeypatch.setattr(reaping, "_inside", lambda engine: "")
    dead = {reaping.OWNER: f"{reaping._here()}:{2**22 + 1}:1"}
    monkeypatch.setattr(reaping, "MACHINE", tmp_path / "machine-id")
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    theirs = {reaping.OWNER: f"{reaping._here()}:{2**22 + 1}:1"}
    monkeypatch.undo()
    monkeypatch.setattr(reaping, "_inside", lambda engine: "")
    assert reaping._is_dead(dead)
    assert not reaping._is_dead(theirs)
