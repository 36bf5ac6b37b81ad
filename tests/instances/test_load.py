"""Sources of instances: files in every published format, rows among which some are bad, the hub."""

import gzip
import json

import pytest

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances import hub
from aem_harness.harness.instances.load import load, load_tasks
from aem_harness.harness.instances.rows import digest, parse_row, to_row


def row(number: int, **change: object) -> dict:
    return {
        "instance_id": f"o__r-{number}",
        "repo": "o/r",
        "base_commit": "0123456789abcdef",
        "version": "1.0",
        "problem_statement": "It breaks.",
        "hints_text": "",
        "created_at": "2024-01-01T00:00:00Z",
        "patch": "p",
        "test_patch": "t",
        "FAIL_TO_PASS": '["a"]',
        "PASS_TO_PASS": '["b", "c d"]',
        "image": "i",
        "eval_script": "e",
        "log_parser": "parse_log_pytest",
        "eval_type": "pass_and_fail",
        **change,
    }


ROWS = [row(number) for number in (3, 1, 2)]


def write(path, rows) -> None:
    """`rows` in the format that the file's name says."""
    if ".parquet" in path.name:
        import pyarrow
        from pyarrow import parquet

        sink = pyarrow.BufferOutputStream()
        parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
        data = sink.getvalue().to_pybytes()
    else:
        text = json.dumps(rows) if ".jsonl" not in path.name else "\n".join(map(json.dumps, rows))
        data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


FORMATS = ["rows.json", "rows.jsonl", "rows.parquet", "rows.json.gz", "rows.jsonl.gz", "rows.parquet.gz"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same_tasks_in_the_order_of_the_file(tmp_path, name):
    write(tmp_path / name, ROWS)
    loaded = load(tmp_path / name)
    assert [task.instance_id for task in loaded.tasks] == ["o__r-3", "o__r-1", "o__r-2"]
    assert loaded.tasks[0].pass_to_pass == ("b", "c d")
    assert (loaded.problems, loaded.name) == ([], name)
    write(tmp_path / "same.jsonl", [row(n, PASS_TO_PASS=["b", "c d"]) for n in (1, 2, 3)])
    assert load(str(tmp_path / "same.jsonl")).digest == loaded.digest


def test_parquet_lists_and_timestamps_are_read(tmp_path):
    from datetime import datetime

    write(tmp_path / "rows.parquet", [row(1, FAIL_TO_PASS=["a"], created_at=datetime(2024, 1, 2))])
    (task,) = load_tasks(tmp_path / "rows.parquet")
    assert task.fail_to_pass == ("a",)
    assert task.instance.created_at == "2024-01-02T00:00:00Z"


def test_a_folder_of_splits_is_read_as_swebench_reads_it(tmp_path):
    write(tmp_path / "test.parquet", ROWS)
    write(tmp_path / "dev.parquet", ROWS[:1])
    assert len(load(tmp_path).tasks) == 3
    assert len(load(str(tmp_path), split="dev").tasks) == 1


def test_bad_rows_are_one_line_each_and_do_not_spoil_the_others(tmp_path):
    path = tmp_path / "rows.jsonl"
    good = [json.dumps(row(number)) for number in range(497)]
    bad = [json.dumps(row(900, base_commit=7)), '{"instance_id": "o__r-901"', json.dumps(row(12))]
    path.write_text("\n".join([*good[:100], bad[0], "", *good[100:300], bad[1], *good[300:], bad[2]]))
    loaded = load(path)
    assert len(loaded.tasks) == 497
    assert [line.split(":")[0] for line in loaded.problems] == [
        "rows.jsonl row 101 (o__r-900)",
        "rows.jsonl row 303",
        "rows.jsonl row 501 (o__r-12)",
    ]
    assert loaded.problems[0].endswith("base_commit must be text, is a number")
    assert "is not JSON" in loaded.problems[1]
    assert loaded.problems[2].endswith("instance_id is already that of row 13")
    write(tmp_path / "good.jsonl", list(map(json.loads, good)))
    assert load(tmp_path / "good.jsonl").digest == loaded.digest


def test_strict_makes_a_bad_row_an_error(tmp_path):
    write(tmp_path / "rows.json", [row(1), row(2, repo=None), 5])
    with pytest.raises(DataError, match=r"rows.json row 2 \(o__r-2\): repo is null \(and 1 more invalid row\)"):
        load(tmp_path / "rows.json", strict=True)
    with pytest.raises(DataError, match="row 2"):
        load_tasks(tmp_path / "rows.json")


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("rows.json", b"[{", "rows.json is not JSON"),
        ("rows.json", b"{}", "must hold a list of rows"),
        ("rows.json", b"[]", "has no rows"),
        ("rows.json", b"[1, 2]", r"row 1: must be an object with named fields, is a number \(and 1 more"),
        ("rows.jsonl", b"\xff\xfe\x00", "row 1: is not JSON"),
        ("rows.parquet", b"PAR1", "is not a parquet file"),
        ("rows.json.gz", b"no gzip", "cannot read"),
        ("rows.jsonl.gz", gzip.compress(b"x" * 999)[:-9], "cannot read"),
    ],
    ids=["broken", "object", "empty", "numbers", "binary", "parquet", "gzip", "cut_gzip"],
)
def test_a_file_that_is_not_its_format_is_one_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["nothing", "rows.csv", "a/b/c", ""])
def test_an_unknown_source_names_the_known_ones(source):
    with pytest.raises(DataError, match="give verified, lite, full, multilingual, sample, tiny, owner/name"):
        load(source)


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"no such file: nowhere/rows\.jsonl"):
        load("nowhere/rows.jsonl")


def test_a_hub_that_cannot_be_reached_is_one_line_with_the_remedy(monkeypatch):
    import datasets.config
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=r"cannot load nobody/nothing .*pass a local .json, .jsonl, .parquet, .arrow file"
    ) as caught:
        load("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_all_published_rows_of_verified_load(shared, tmp_path):
    source = shared / "data/swe-bench-verified.jsonl.gz"
    loaded = load(source)
    assert len(loaded.tasks) == 500
    assert loaded.problems == []
    task = next(task for task in loaded.tasks if task.instance_id == "django__django-11066")
    assert task.instance.image == "swebench/sweb.eval.x86_64.django_1776_django-11066:latest"
    assert task.provenance.keys() == {"image", "eval_script", "log_parser", "eval_type"}
    rows = [json.loads(line) for line in gzip.decompress(source.read_bytes()).splitlines()]
    write(tmp_path / "turned.parquet", rows[::-1])
    assert load(tmp_path / "turned.parquet").digest == loaded.digest
    write(tmp_path / "completed.jsonl", [to_row(task) for task in loaded.tasks])
    completed = load(tmp_path / "completed.jsonl")
    assert [t.eval_script for t in completed.tasks] == [t.eval_script for t in loaded.tasks]
    assert all(not t.provenance for t in completed.tasks)


MOMENT = "2024-01-02T03:04:05Z"


def moments():
    from datetime import UTC, datetime, timedelta, timezone

    at = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    seconds = at.timestamp()
    yield from (MOMENT, at, at.replace(tzinfo=None), at.astimezone(timezone(timedelta(hours=5))))
    yield from (int(seconds), int(seconds * 1e3), int(seconds * 1e6), int(seconds) * 10**9, seconds * 1e3)


def test_a_moment_has_one_digest_however_it_is_written():
    texts = {parse_row(row(1, created_at=value)).instance.created_at for value in moments()}
    assert texts == {MOMENT}
    assert len({digest([row(1, created_at=value)]) for value in moments()}) == 1
    assert digest([row(1)]) == "29835fded5b274be7e9496494d89ba04f7ef51600a0c5e41fb2e9387bfd4061d", (
        "digests of published rows stay what they were"
    )


@pytest.mark.parametrize("value", [True, [], {}, float("inf"), 10**30])
def test_what_is_no_moment_is_refused_by_name(value):
    with pytest.raises(DataError, match="created_at"):
        parse_row(row(1, created_at=value))


@pytest.mark.parametrize("form", ["to_json", "to_parquet", "save_to_disk", "dict"])
def test_rows_that_the_datasets_library_wrote_are_read(tmp_path, form):
    datasets = pytest.importorskip("datasets")
    from datetime import UTC, datetime

    write(tmp_path / "plain.jsonl", [row(number, created_at=MOMENT) for number in (1, 2)])
    moment = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    table = datasets.Dataset.from_list([row(number, created_at=moment) for number in (1, 2)])
    path = tmp_path / {"to_json": "rows.json", "to_parquet": "rows.parquet"}.get(form, "folder")
    if form == "dict":
        datasets.DatasetDict(test=table).save_to_disk(path)
    else:
        getattr(table, form)(path)
    assert load(path).digest == load(tmp_path / "plain.jsonl").digest


@pytest.fixture
def no_hub(monkeypatch):
    """A hub address at which nothing listens."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield


def test_without_the_hub_the_copy_of_an_earlier_download_serves(no_hub, monkeypatch, caplog):
    asked = []
    monkeypatch.setattr(hub, "rows", lambda name, split, offline: asked.append(offline) or [row(1)])
    assert [task.instance_id for task in load("verified").tasks] == ["o__r-1"]
    assert asked == [True]
    assert "taken from the copy of an earlier download" in caplog.text


def test_a_split_of_a_hub_set_is_named_after_a_colon(no_hub, monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "rows", lambda name, split, offline: asked.append((name, split)) or [row(1)])
    assert load("owner/name:filtered").name == "owner/name:filtered"
    load("owner/name")
    load("verified")
    assert asked == [("owner/name", "filtered"), ("owner/name", "test"), ("SWE-bench/SWE-bench_Verified", "test")]


def test_without_the_hub_and_a_copy_the_remedy_is_a_local_file(no_hub, monkeypatch):
    def missing(name, split, offline):
        raise FileNotFoundError(name)

    monkeypatch.setattr(hub, "rows", missing)
    with pytest.raises(DataError, match=r"does not answer.*no copy of an earlier download.*--set FILE") as caught:
        load("verified")
    assert "\n" not in str(caught.value)
