"""Selection of tasks: a pure function of the dataset and the filters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.instances.rows import parse_row
from aem_harness.harness.instances.select import parse_slice, select


def task(name: str, repo: str, difficulty: str):
    row = dict.fromkeys(("problem_statement", "patch", "test_patch", "image", "eval_script", "log_parser"), "x")
    tests = {"FAIL_TO_PASS": ["a"], "PASS_TO_PASS": [], "eval_type": "pass_and_fail", "base_commit": "0123456"}
    return parse_row(row | tests | {"instance_id": name, "repo": repo, "difficulty": difficulty})


TASKS = [
    task(f"{repo.replace('/', '__')}-{number}", repo, difficulty)
    for number, (repo, difficulty) in enumerate(
        [("django/django", "hard"), ("psf/requests", "easy"), ("django/django", "easy"), ("sympy/sympy", "hard")] * 5
    )
]


def ids(tasks) -> list[str]:
    return [task.instance_id for task in tasks]


def test_without_filters_everything_is_selected():
    assert select(TASKS) == TASKS


def test_ids_and_globs_select_in_the_order_of_the_dataset():
    chosen = select(TASKS, ids=["sympy__sympy-3", "psf__*", "django__django-0", "psf__requests-1"])
    assert ids(chosen)[:3] == ["django__django-0", "psf__requests-1", "sympy__sympy-3"]
    assert len(chosen) == 7


def test_filters_narrow_each_other():
    chosen = select(TASKS, ids=["django*"], repos=["django/django", "psf/requests"], difficulties=["easy"])
    assert {(t.instance.repo, t.instance.difficulty) for t in chosen} == {("django/django", "easy")}


def test_repos_may_be_globs():
    assert select(TASKS, repos=["*/requests"]) == select(TASKS, repos=["psf/requests"])


def test_ids_come_from_files_too(tmp_path):
    (tmp_path / "ids.txt").write_text("# wanted\npsf__requests-1\n\n  sympy__sympy-*  \n")
    chosen = select(TASKS, ids=[f"@{tmp_path / 'ids.txt'}", "django__django-0"])
    assert ids(chosen)[:3] == ["django__django-0", "psf__requests-1", "sympy__sympy-3"]
    assert len(chosen) == 7


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"ids": ["django__django-99"]}, "unknown instance 'django__django-99'; close: django__django-"),
        ({"ids": ["flask*"]}, r"no instance matches 'flask\*'"),
        ({"ids": ["@nowhere.txt"]}, "cannot read nowhere.txt"),
        ({"repos": ["django/djagno"]}, "unknown repo 'django/djagno'; close: django/django"),
        ({"difficulties": ["trivial"]}, "unknown difficulty 'trivial'; there are: hard, easy"),
        ({"slice": "1:2:3:4"}, "slice must read start:stop:step"),
        ({"slice": "::0"}, "slice must read start:stop:step"),
        ({"slice": "50:"}, "the selection is empty"),
        ({"sample": 21}, "cannot draw a sample of 21 from 20 instances"),
        ({"sample": 0}, "cannot draw a sample of 0"),
    ],
    ids=lambda value: str(next(iter(value.values()))) if isinstance(value, dict) else "",
)
def test_what_matches_nothing_is_one_line(filters, message):
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        select(TASKS, **filters)
    assert "\n" not in str(caught.value)


BOUND = st.none() | st.integers(-25, 25)


@given(BOUND, BOUND, st.none() | st.integers(-3, 3).filter(bool))
def test_slices_are_pythons(start, stop, step):
    text = ":".join("" if part is None else str(part) for part in (start, stop, step))
    assert TASKS[parse_slice(text)] == TASKS[start:stop:step]


def test_a_lone_number_counts_from_the_start():
    assert select(TASKS, slice="3") == TASKS[:3]


@given(st.integers(1, 20), st.integers(0, 2**32), st.permutations(TASKS))
def test_a_sample_is_a_subset_that_seed_and_content_decide(count, seed, tasks):
    chosen = select(tasks, sample=count, sample_seed=seed)
    assert len(set(ids(chosen))) == count
    assert ids(chosen) == [name for name in ids(tasks) if name in ids(chosen)]
    assert set(ids(chosen)) == set(ids(select(TASKS, sample=count, sample_seed=seed)))


def test_seeds_draw_different_samples():
    assert len({tuple(ids(select(TASKS, sample=5, sample_seed=seed))) for seed in range(20)}) > 10
