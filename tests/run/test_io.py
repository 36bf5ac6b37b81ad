"""Files are read whatever tool left them, and written so that neither a kill nor a full disk leaves half of one."""

import gzip
import json
import os
import stat
import threading
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from aem_harness.harness.errors import ConfigError, DataError, validating
from aem_harness.harness.io import (
    append_line,
    cache_folder,
    json_lines,
    read_json,
    read_json_lines,
    read_text,
    replacing,
    temporary_folder,
    write_bytes,
    write_json,
    write_json_lines,
    write_text,
)
from aem_harness.harness.types import Record

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "gzipped-without-its-suffix.json"])
def test_text_is_read_in_every_encoding_that_has_a_mark_gzipped_or_not(
    tmp_path: Path, encoding: str, name: str
) -> None:
    path, raw = tmp_path / name, '{"größe": "1 µm"}\n'.encode(encoding)
    path.write_bytes(raw if name == "a.json" else gzip.compress(raw))
    assert read_text(path) == '{"größe": "1 µm"}\n'
    assert read_json(path) == {"größe": "1 µm"}
    assert list(read_json_lines(path)) == [(1, {"größe": "1 µm"})]


@given(values=st.lists(JSON, min_size=1, max_size=4))
@settings(max_examples=30)
def test_json_lines_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, values: list[object]
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    write_json_lines(path, values)
    assert [line.value for line in json_lines(path.read_bytes())] == values


def test_json_lines_end_at_line_feeds_only() -> None:
    text = json.dumps({"patch": "a\u2028b\x85c"}, ensure_ascii=False) + "\r\n\n" + '{"b": 1}'
    lines = list(json_lines(text.encode()))
    assert [(line.number, line.value) for line in lines] == [(1, {"patch": "a\u2028b\x85c"}), (3, {"b": 1})]


def test_a_line_that_is_not_json_is_named_and_the_others_are_read() -> None:
    lines = list(json_lines(b'{"a": 1}\n{"b": \n{"c": 1}\n'))
    assert [line.value for line in lines] == [{"a": 1}, None, {"c": 1}]
    assert (lines[1].number, lines[1].problem[:12]) == (2, "is not JSON:")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("gone.json", None, "cannot read .*gone.json: No such file"),
        ("a.json", b"{", "a.json is not JSON"),
        ("a.json.gz", b"no gzip", "cannot read .*a.json.gz"),
        ("a.json.gz", gzip.compress(b"x" * 999, mtime=0)[:-9], "cannot read .*a.json.gz"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(
    tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        read_json(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_line_that_is_no_object_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n[]\n")
    with pytest.raises(DataError, match="line 2 is not an object"):
        list(read_json_lines(tmp_path / "a.jsonl"))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(TypeError), replacing(path) as file:
        _half(path, file)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def _half(path: Path, file: IO[bytes]) -> None:
    file.write(b"half of the new")
    assert path.read_text() == "old"
    file.write("text, which this file does not take")  # type: ignore[arg-type]


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path, wholes = tmp_path / "a.json", [{"n": n, "fill": "x" * 50_000} for n in range(40)]
    write_json(path, wholes[0])
    seen: list[object] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(read_json(path))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for whole in wholes:
        write_json(path, whole)
    done.set()
    watcher.join()
    assert seen
    assert all(one in wholes for one in seen)


def test_many_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    writers = [threading.Thread(target=write_text, args=(path, str(n) * 1000)) for n in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(set(path.read_text())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_files_and_folders_have_the_permissions_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "")
        folder = temporary_folder(tmp_path, "0")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "file").read_text() == "text"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_bytes(pipe, b"through")
    reader.join()
    assert read == [b"through"]
    assert pipe.is_fifo()


def test_bytes_that_were_no_text_come_out_as_they_were(tmp_path: Path) -> None:
    write_text(tmp_path / "a", b"caf\xe9".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "a").read_bytes() == b"caf\xe9"


def test_an_appended_line_can_be_read_at_once(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("a") as file:
        append_line(file, "one")
        assert (tmp_path / "a.jsonl").read_text() == "one\n"


@pytest.mark.parametrize("name", ["missing/file", "folder", "file/below"])
def test_a_place_that_cannot_be_written_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=f"cannot write {tmp_path / name}: "):
        write_text(tmp_path / name, "")


@pytest.mark.parametrize("home", ["absolute", "relative", "empty", "unset"])
def test_the_cache_is_never_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    values = {"absolute": str(tmp_path / "cache"), "relative": "cache", "empty": ""}
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if home in values:
        monkeypatch.setenv("XDG_CACHE_HOME", values[home])
    monkeypatch.chdir(tmp_path)
    folder = cache_folder("calibration")
    parent = tmp_path / "cache" if home == "absolute" else tmp_path / "home" / ".cache"
    assert folder == parent / "aem-harness" / "calibration"
    assert folder.is_dir()


def test_a_cache_that_cannot_be_made_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        cache_folder()


class _Settings(Record):
    margin: float = Field(0.1, gt=0)
    name: str = "x"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"margin": 0}, "settings: margin: Input should be greater than 0, not 0 (see the guide)"),
        ({"margni": 1}, "settings: margni: there is no such field (see the guide)"),
        ({"name": ["a"]}, "settings: name: Input should be a valid string (see the guide)"),
    ],
)
def test_refused_values_are_one_line_that_names_the_field(values: dict[str, object], line: str) -> None:
    with pytest.raises(ConfigError) as caught, validating(ConfigError, "settings", hint=" (see the guide)"):
        _Settings.model_validate(values)
    assert str(caught.value) == line
