"""One row: what is accepted, what is derived, and how a broken one is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.legacy import default_image
from aem_harness.harness.instances.rows import digest, parse_row, to_row

ROW = {
    "instance_id": "owner__repo-1",
    "repo": "owner/repo",
    "base_commit": "0123456789abcdef0123456789abcdef01234567",
    "problem_statement": "It breaks.",
    "patch": "diff --git a/x b/x\n",
    "test_patch": "",
    "FAIL_TO_PASS": ["t::a"],
    "PASS_TO_PASS": [],
    "image": "owner/image:tag",
    "eval_script": "pytest",
    "log_parser": "parse_log_pytest",
    "eval_type": "fail_only",
}
REQUIRED = ("instance_id", "repo", "base_commit", "problem_statement", "patch", "test_patch", *("FAIL_TO_PASS",))


def without(*names: str) -> dict:
    return {name: value for name, value in ROW.items() if name not in names}


def test_a_row_of_swebench_5_is_taken_as_it_is():
    task = parse_row(ROW, dataset="d")
    assert (task.instance_id, task.instance.image, task.eval_type) == ("owner__repo-1", "owner/image:tag", "fail_only")
    assert task.fail_to_pass == ("t::a",)
    assert task.provenance == {}
    assert task.network


@pytest.mark.parametrize("tests", [["a", "b[x y]"], '["a", "b[x y]"]'], ids=["list", "json"])
def test_test_lists_come_as_lists_or_as_json_text(tests):
    assert parse_row(ROW | {"FAIL_TO_PASS": tests}).fail_to_pass == ("a", "b[x y]")


def test_optional_fields_may_be_absent_or_null():
    assert parse_row(ROW | {"hints_text": None}).instance.hints_text == ""
    assert parse_row(ROW).instance.difficulty == ""


def test_a_missing_image_gets_its_official_name():
    task = parse_row(without("image") | {"instance_id": "Django__django-1"})
    assert task.instance.image == "swebench/sweb.eval.x86_64.django_1776_django-1:latest"
    assert task.instance.image == default_image("Django__django-1")
    assert task.provenance == {"image": "swebench image naming"}


def test_what_cannot_be_derived_is_said():
    with pytest.raises(DataError, match="eval_script is missing and cannot be derived for repo 'owner/repo'"):
        parse_row(without("eval_script"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instance_id": "a" * 201}, "at most 200"),
        ({"instance_id": "../../etc"}, "instance_id must be letters, digits"),
        ({"instance_id": 3}, "instance_id must be text, is a number"),
        ({"version": 1.1}, "version must be text, is a number: 1.10 and 1.1 are then one; read with dtype=False"),
        ({"base_commit": "HEAD; rm -rf /"}, "base_commit must be a hexadecimal commit id"),
        ({"repo": " "}, "repo is empty"),
        ({"patch": None}, "patch is null"),
        ({"hints_text": ["x"]}, "hints_text must be text, is a list"),
        ({"FAIL_TO_PASS": "[]"}, "FAIL_TO_PASS is empty"),
        ({"FAIL_TO_PASS": "[a"}, "FAIL_TO_PASS must be a list of test ids, or JSON text of one: "),
        ({"PASS_TO_PASS": '{"a": 1}'}, "PASS_TO_PASS must be a list of test ids, or JSON text of one, is an object"),
        ({"PASS_TO_PASS": ["a", 1]}, "PASS_TO_PASS must be .* entry 1 is a number"),
        ({"eval_type": "both"}, "eval_type must be one of pass_and_fail, fail_only, is 'both'"),
        ({"network": "no"}, "network must be true or false, is text"),
        ({"build_args": {"A": 1}}, "build_args must map names to text"),
        ({"dockerfile": "nowhere"}, "dockerfile must name a folder with a Dockerfile"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_broken_field_is_named_with_what_it_must_be(change, message):
    with pytest.raises(DataError, match=message):
        parse_row(ROW | change)


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_field_is_named(name):
    with pytest.raises(DataError, match=f"^{name} is missing$"):
        parse_row(without(name))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys([*ROW, "hints_text", "network", "build_args"], JSON)))
def test_whatever_a_field_holds_the_row_is_good_or_one_line_says_why(change):
    said = ""
    try:
        assert parse_row(ROW | change).fail_to_pass
    except DataError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 300


@given(JSON)
def test_a_row_that_is_no_object_is_refused(value):
    with pytest.raises(DataError):
        parse_row(value)


def test_a_local_row_may_bring_its_dockerfile(tmp_path):
    (tmp_path / "box").mkdir()
    (tmp_path / "box/Dockerfile").write_text("FROM scratch\n")
    task = parse_row(ROW | {"dockerfile": "box", "build_args": {"A": "1"}, "network": False}, folder=tmp_path)
    assert task.dockerfile == str(tmp_path / "box")
    assert task.build_args == {"A": "1"}
    assert not task.network


def test_a_task_goes_back_to_a_row_of_swebench_5():
    task = parse_row(ROW)
    row = to_row(task)
    assert parse_row(row) == task
    assert json.loads(row["FAIL_TO_PASS"]) == ["t::a"]


@given(st.permutations([ROW | {"instance_id": f"o__r-{n}"} for n in range(5)]))
def test_the_digest_does_not_depend_on_the_order_of_rows(rows):
    assert digest(rows) == digest(sorted(rows, key=lambda row: row["instance_id"]))


def test_the_digest_is_that_of_the_content_not_of_its_spelling():
    same = ROW | {"FAIL_TO_PASS": '["t::a"]', "hints_text": None, "environment_setup_commit": "x"}
    assert digest([same]) == digest([ROW])


@pytest.mark.parametrize("name", sorted(ROW))
def test_the_digest_changes_with_every_field(name):
    other = ["other"] if name.endswith("_TO_PASS") else "other"
    assert digest([ROW | {name: other}]) != digest([ROW])
