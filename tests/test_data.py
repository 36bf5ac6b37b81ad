"""`make data`: only what the tests were written for is taken for it."""

import gzip
import json

import pytest

from tests import data


def read(file):
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]


def test_fetched_rows_are_kept_only_if_they_are_the_published_ones(shared, tmp_path):
    rows = read(shared / data.ROWS)
    data.write_rows(reversed(rows), tmp_path / "rows.jsonl.gz")
    assert read(tmp_path / "rows.jsonl.gz") == rows
    changed = [rows[0] | {"patch": rows[1]["patch"]}, *rows[1:]]
    with pytest.raises(data.Refused, match="expected"):
        data.write_rows(changed, tmp_path / "other.jsonl.gz")
    assert not (tmp_path / "other.jsonl.gz").exists()


def test_missing_and_changed_files_are_told_apart(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    listed = [f"{data.checksum(tmp_path / name)}  {name}" for name in ("folder", "b.txt")]
    (tmp_path / "sums").write_text("\n".join([*listed, f"{0:064}  gone.csv"]) + "\n")
    monkeypatch.setattr(data, "CHECKSUMS", tmp_path / "sums")
    assert data.checked(tmp_path) == (["gone.csv"], [])
    (tmp_path / "folder" / "a.txt").write_text("another")
    assert data.checked(tmp_path) == (["gone.csv"], ["folder"])
