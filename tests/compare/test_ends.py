"""Whose fault an end is: one table, a row for every word of every tool, and one file that overrides it in both arms."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness import errors
from aem_harness.harness.compare.ledger import ledger, settle
from aem_harness.harness.compare.outcomes import load, write_csv
from aem_harness.harness.ends import TABLE, Whose, read_ends
from aem_harness.harness.errors import AemError, ConfigError
from aem_harness.harness.schema import normalise
from aem_harness.harness.types import ExitStatus

FAMILY = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AemError)]
DOCS = Path(__file__).parents[2] / "docs" / "ends.md"


def words(text: str) -> list[str]:
    return text.split()


# Words as the tools write them, and whether a graded verdict stands. Written by hand: the table is held against it.
COUNTS = words("""
submitted step_limit token_limit context_limit wall_limit format_errors agent_crash Submitted LimitsExceeded
TimeExceeded FormatError RepeatedFormatError exit_cost exit_context exit_format exit_command_timeout
exit_total_execution_time exit_forfeit exit_command exit_error ContextWindowExceededError
ContentPolicyViolationError AgentTimeoutError ContextLengthExceededError OutputTokenExceededError
OutputLengthExceededError AgentSafetyRefusalError NonZeroAgentExitCodeError message_limit turn_limit time_limit
working_limit cost_limit custom_limit graceful AgentStuckInLoopError MaxIterationsReached
LLMContextWindowExceedError error_ids litellm.exceptions.ContextWindowExceededError
""")
LOST = words("""
fault exit_api exit_environment_error early_exit UserInterruption RateLimitError InternalServerError
APIConnectionError ServiceUnavailableError Timeout APIError AuthenticationError NotFoundError BadRequestError
BudgetExceededError EnvironmentStartTimeoutError AgentSetupTimeoutError VerifierTimeoutError RewardFileNotFoundError
ApiRateLimitError ApiInternalServerError ApiOverloadedError NetworkConnectionError AgentAuthenticationError
ModelNotFoundError CancelledError operator_limit invalidated unscored infra_error system AgentRuntimeError
AgentRuntimeTimeoutError LLMServiceUnavailableError LLMRateLimitError failed_ids container_unavailable out_of_memory
OSError MemoryError CalledProcessError ConnectionError TimeoutExpired DockerException KeyboardInterrupt
SomethingNobodyListed litellm.exceptions.RateLimitError requests.exceptions.HTTPError
""")


OUTCOMES = ("resolved", "unresolved", "empty_patch")


def rows(*ends: str, outcome: Sequence[str] | str = "resolved") -> pd.DataFrame:
    raw = pd.DataFrame({"arm": "a", "instance_id": [f"x-{n}" for n in range(len(ends))], "seed": 0, "end": ends})
    return normalise(raw.assign(outcome=outcome if isinstance(outcome, str) else list(outcome)), "test")


@pytest.mark.parametrize("word", COUNTS)
def test_an_end_of_the_model_or_its_agent_keeps_the_verdict(word: str) -> None:
    table = settle(rows(word, word, word, outcome=OUTCOMES), read_ends(), "test").table
    assert table["outcome"].tolist() == list(OUTCOMES)


@pytest.mark.parametrize("word", LOST)
def test_any_other_end_takes_the_verdict_away_whatever_it_is_and_keeps_it_on_record(word: str) -> None:
    table = settle(rows(word, word, word, outcome=OUTCOMES), read_ends(), "test").table
    assert table["outcome"].tolist() == ["error"] * 3
    assert table["resolved"].isna().all()
    assert table["graded"].tolist() == list(OUTCOMES)
    assert all(word.rpartition(".")[2] in cause for cause in table["cause"])


def test_no_word_is_in_the_table_twice_and_every_row_of_it_is_in_the_documentation() -> None:
    words = [end.word.lower() for end in TABLE]
    assert len(words) == len(set(words))
    text = DOCS.read_text()
    for end in TABLE:
        assert f"`{end.word}`" in text, f"docs/ends.md does not name {end.word}"


def test_our_own_exit_statuses_are_rows_and_all_but_a_fault_count() -> None:
    ends = read_ends()
    assert {status: ends.of(status).whose.counts for status in ExitStatus} == {
        status: status is not ExitStatus.FAULT for status in ExitStatus
    }


@pytest.mark.parametrize("kind", FAMILY)
def test_a_fault_is_a_row_by_the_boundary_that_it_crossed_and_never_counts(kind: type[AemError]) -> None:
    end = read_ends().raised(kind("away"))
    assert end.word == f"fault: {kind.boundary}"
    assert end.status == ExitStatus.FAULT
    assert end.whose in (Whose.INFRASTRUCTURE, Whose.OPERATOR)


def test_an_exception_of_the_agents_own_is_its_crash_and_one_of_the_host_is_not() -> None:
    ends = read_ends()
    assert ends.raised(ZeroDivisionError("slip")) == ends.of("agent_crash")
    assert ends.raised(FileNotFoundError(2, "no such file")) == ends.of("agent_crash")
    assert ends.raised(OSError(28, "No space left on device")).word == "fault: host"
    assert ends.raised(AemError("ours")).word == "fault: harness"


def test_rows_may_be_given_as_a_mapping_and_read_back_in_the_spelling_of_the_table() -> None:
    ends = read_ends({"badrequesterror": "model", "Odd": "operator"})
    assert ends.overrides == {"BadRequestError": "model", "Odd": "operator"}
    assert read_ends(ends.overrides) == read_ends(ends) == ends
    with pytest.raises(ConfigError, match="Odd is 'nobody'"):
        read_ends({"Odd": "nobody"})


def test_submitted_with_an_end_in_brackets_is_that_end() -> None:
    ends = read_ends()
    assert ends.of("submitted (exit_api)").whose is Whose.INFRASTRUCTURE
    assert ends.of("submitted (exit_cost)").status == "token_limit"


def test_a_word_that_no_table_has_is_named_once_with_the_remedy() -> None:
    found = settle(rows("Odd", "Odd", "Strange", "submitted"), read_ends(), "somewhere")
    assert found.table["resolved"].isna().tolist() == [True, True, True, False]
    (note,) = found.notes
    assert "3 rollouts ended with Odd, Strange" in note
    assert "--ends" in note


def test_one_file_overrides_the_table_in_both_arms_and_takes_it_back(tmp_path: Path) -> None:
    file = tmp_path / "ends.yaml"
    file.write_text("exit_api: model\nContextWindowExceededError: operator\n")
    table = pd.concat([rows("exit_api", "ContextWindowExceededError", "submitted")] * 2, ignore_index=True)
    table["arm"] = ["a"] * 3 + ["b"] * 3
    write_csv(settle(table, read_ends(), "test").table, tmp_path / "arms.csv")
    plain = load([tmp_path / "arms.csv"]).table
    assert plain["resolved"].isna().tolist() == [True, False, False] * 2
    changed = load([tmp_path / "arms.csv"], read_ends(file)).table
    assert changed["resolved"].isna().tolist() == [False, True, False] * 2
    assert changed["resolved"].tolist()[0] is True, "the grader's verdict was kept beside the loss"


@pytest.mark.parametrize(
    ("text", "message"),
    [("exit_api: nobody", "must be one of"), ("- exit_api", "lines of"), ("a: [", "is not YAML")],
)
def test_an_override_that_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "ends.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        read_ends(file)
    assert "ends.yaml" in str(caught.value)


def test_the_ledger_counts_every_rollout_of_every_arm_once() -> None:
    table = settle(rows("exit_api", "exit_api", "exit_cost", "submitted"), read_ends(), "test").table
    found = [(row.end, row.whose, row.rollouts, row.lost) for row in ledger(table, read_ends())]
    assert found == [("exit_api", "infrastructure", 2, 2), ("exit_cost", "model", 1, 0), ("submitted", "model", 1, 0)]


def test_compare_prints_the_ledger_and_takes_the_file(tmp_path: Path) -> None:
    ends = tmp_path / "ends.yaml"
    ends.write_text("exit_api: model\n")
    for arm in ("one", "two"):
        table = rows(*["submitted"] * 6, "exit_api", "exit_cost").assign(arm=arm)
        write_csv(settle(table, read_ends(), arm).table, tmp_path / f"{arm}.csv")
    arguments = ["compare", str(tmp_path / "one.csv"), str(tmp_path / "two.csv")]
    shown = CliRunner().invoke(app, arguments)
    assert shown.exit_code == 0, shown.output
    assert "How rollouts ended" in shown.output
    assert [line.split() for line in shown.output.splitlines() if "exit_api" in line] == [
        ["one", "exit_api", "infrastructure", "1", "1"],
        ["two", "exit_api", "infrastructure", "1", "1"],
    ]
    again = CliRunner().invoke(app, [*arguments, "--ends", str(ends)])
    assert [line.split() for line in again.output.splitlines() if " exit_api " in line] == [
        ["one", "exit_api", "model", "1", "0"],
        ["two", "exit_api", "model", "1", "0"],
    ]
    assert "by --ends, in all arms: exit_api: model" in again.output


def test_the_ledger_tells_a_wrong_setting_from_a_failure_and_takes_a_cause_without_a_boundary() -> None:
    raw = rows("x", "x", "x").assign(end=None, exit_status="fault", outcome="error", resolved=pd.NA)
    table = raw.assign(cause=["config: the prompt does not fit", "policy: away", None])
    found = {row.end.strip(): row.whose for row in ledger(table, read_ends())}
    assert found == {"fault: config": "operator", "fault: policy": "infrastructure", "fault:": "infrastructure"}
