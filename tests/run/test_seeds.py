"""Seeds instance by instance: what is asked for is what is planned, and no run gets seeds because of what it showed."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.run.seeds import plan_of, read_allocation, refuse_later_allocation, seeds_of, widened

PLANS = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 9), min_size=1)


@given(PLANS)
def test_a_plan_holds_every_instances_seeds(seeds: dict[str, int]) -> None:
    assert seeds_of(plan_of(seeds)) == seeds


@given(PLANS, PLANS)
def test_a_widened_plan_has_what_either_asked_for(one: dict[str, int], other: dict[str, int]) -> None:
    both = seeds_of(widened(plan_of(one), plan_of(other)))
    assert both == {name: max(one.get(name, 0), other.get(name, 0)) for name in {**one, **other}}


def test_equal_seeds_need_no_allocation() -> None:
    assert plan_of({"a": 2, "b": 2}) == {"instances": ["a", "b"], "seeds": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("instance,seeds\na,1\n", "needs columns instance_id and seeds"),
        ("instance_id,seeds\n", "one row per instance"),
        ("instance_id,seeds\na,0\n", "row 2: seeds is '0'"),
        ("instance_id,seeds\na,1\nb,x\n", "row 3: seeds is 'x'"),
        ("instance_id,seeds\na,1\na,2\n", "row 3: a occurs twice"),
    ],
)
def test_a_bad_allocation_is_refused_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "seeds.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_allocation(tmp_path / "seeds.csv")


def test_an_allocation_cannot_be_put_on_a_run_that_has_begun_otherwise() -> None:
    plan = plan_of({"a": 2, "b": 2})
    refuse_later_allocation({"a": 2}, plan, Path("run"))
    refuse_later_allocation({"c": 5}, plan, Path("run"))
    with pytest.raises(ConfigError, match="bias its rates"):
        refuse_later_allocation({"a": 4, "b": 2}, plan, Path("run"))


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--seeds", "3"], "remove --seeds"), ([], "names 1 instances that sample lacks: nobody")],
)
def test_the_command_line_says_what_is_wrong_before_anything_runs(
    tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "seeds.csv").write_text("instance_id,seeds\nnobody,2\n")
    command = ["run", "--agent", "gold", "--set", "sample", "--allocation", str(tmp_path / "seeds.csv")]
    done = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "r"), *options])
    assert isinstance(done.exception, ConfigError)
    assert message in str(done.exception)
    assert not (tmp_path / "r" / "journal.jsonl").exists()
