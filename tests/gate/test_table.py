"""From the outcomes table to two arms, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from aem_harness.harness.compare.outcomes import ArmFacts, Outcomes
from aem_harness.harness.errors import EXIT_INFRASTRUCTURE, ConfigError, DataError, DriftFault
from aem_harness.harness.gate.table import (
    audit_words,
    audited,
    check_pin,
    read_arm,
    refuse_drift,
    refuse_unaudited,
    same_tasks,
)
from aem_harness.harness.schema import normalise


def outcomes(rows, facts=None, **columns) -> Outcomes:
    """Rows of (arm, task, seed, resolved)."""
    raw = pd.DataFrame(rows, columns=["arm", "instance_id", "seed", "resolved"]).assign(**columns)
    return Outcomes(normalise(raw, "outcomes.csv"), facts or {})


TWO = [("a", "t1", 0, 1), ("a", "t1", 1, 0), ("a", "t2", 0, None), ("b", "t1", 0, 1), ("b", "t2", 0, 0)]


def test_every_task_needs_every_seed_of_its_arm():
    arm = read_arm(outcomes(TWO), "a", retries=1)
    assert (arm.tasks, arm.seeds) == (("t1", "t2"), (0, 1))
    np.testing.assert_array_equal(arm.resolved, [[1, 0], [np.nan, np.nan]])


def test_an_unknown_arm_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match="no arm 'c'; the outcomes have a, b"):
        read_arm(outcomes(TWO), "c", retries=1)


def test_an_arm_without_any_verdict_is_refused():
    with pytest.raises(DataError, match="'a' has no verdict"):
        read_arm(outcomes([("a", "t1", 0, None)]), "a", retries=1)


def test_an_outcome_from_a_try_beyond_the_law_counts_as_missing():
    table = outcomes([("a", "t1", 0, 1), ("a", "t2", 0, 1)], attempt=[1, 2])
    np.testing.assert_array_equal(read_arm(table, "a", retries=1).resolved, [[1], [np.nan]])
    np.testing.assert_array_equal(read_arm(table, "a", retries=2).resolved, [[1], [1]])


def test_costs_are_read_where_they_are_known():
    table = outcomes(TWO[3:], prompt_tokens=[10, 20], completion_tokens=[1, 2])
    arm = read_arm(table, "b", retries=1)
    np.testing.assert_array_equal(arm.tokens, [[11], [22]])
    assert arm.gpu_seconds is None


def test_tasks_that_only_one_arm_has_are_refused_or_left_out():
    table = outcomes([*TWO, ("b", "t3", 0, 1)])
    arms = [read_arm(table, name, retries=1) for name in "ab"]
    with pytest.raises(DataError, match=r"1 only in 'b' \(t3\)"):
        same_tasks(*arms)
    assert [arm.tasks for arm in same_tasks(*arms, common=True)] == [("t1", "t2")] * 2


def test_arms_without_a_task_in_common_are_refused_even_so():
    table = outcomes([("a", "t1", 0, 1), ("b", "t2", 0, 1)])
    with pytest.raises(DataError, match="no task in common"):
        same_tasks(*(read_arm(table, name, retries=1) for name in "ab"), common=True)


def test_drift_of_the_grader_refuses_and_names_the_difference():
    table = outcomes(TWO, grader=["swebench 4.1.0"] * 3 + ["swebench 5.0.2"] * 2)
    with pytest.raises(
        DriftFault, match=r"grader differs: a: swebench 4\.1\.0; b: swebench 5\.0\.2.*--allow"
    ) as caught:
        refuse_drift(table, ("a", "b"))
    assert caught.value.exit_code == EXIT_INFRASTRUCTURE
    assert refuse_drift(table, ("a", "b"), {"grader"}) == ["grader differs: a: swebench 4.1.0; b: swebench 5.0.2"]


def test_drift_of_a_server_setting_refuses_but_other_weights_do_not():
    def facts(arm, **fingerprint):
        return ArmFacts(arm=arm, config={"arm": arm, "checkpoint": arm, "infra_retries": 1}, fingerprint=fingerprint)

    same = {"a": facts("a", model="x", max_model_len=8192), "b": facts("b", model="y", max_model_len=8192)}
    assert refuse_drift(outcomes(TWO, same), ("a", "b")) == []
    other = same | {"b": facts("b", model="y", max_model_len=4096)}
    with pytest.raises(DriftFault, match="max_model_len differs: a: 8192; b: 4096"):
        refuse_drift(outcomes(TWO, other), ("a", "b"))


def test_a_group_of_settings_is_allowed_by_its_name_and_another_of_like_spelling_is_not():
    facts = {arm: ArmFacts(arm=arm, agent={"kind": arm, "budget": {"steps": arm}}) for arm in "ab"}
    assert len(refuse_drift(outcomes(TWO, facts), ("a", "b"), {"agent"})) == 2
    for close in ("agen", "agent.bud", "kind"):
        with pytest.raises(DriftFault, match=r"agent\.kind differs"):
            refuse_drift(outcomes(TWO, facts), ("a", "b"), {close})
    with pytest.raises(DriftFault, match=r"agent\.kind differs: a: a; b: b; remove"):
        refuse_drift(outcomes(TWO, facts), ("a", "b"), {"agent.budget"})


def test_of_many_differences_the_first_are_named_and_the_others_counted():
    facts = {arm: ArmFacts(arm=arm, agent={f"s{n:02}": arm for n in range(20)}) for arm in "ab"}
    with pytest.raises(DriftFault, match=r"agent\.s07 differs: a: a; b: b; 12 more differences; remove") as caught:
        refuse_drift(outcomes(TWO, facts), ("a", "b"))
    assert "agent.s08" not in str(caught.value)
    facts = {arm: ArmFacts(arm=arm, agent={f"s{n:02}": arm for n in range(9)}) for arm in "ab"}
    with pytest.raises(DriftFault, match="; 1 more difference; remove"):
        refuse_drift(outcomes(TWO, facts), ("a", "b"))


def test_a_different_retry_law_in_the_arms_is_drift():
    facts = {arm: ArmFacts(arm=arm, config={"infra_retries": n}) for arm, n in (("a", 1), ("b", 3))}
    with pytest.raises(DriftFault, match="infra_retries differs"):
        refuse_drift(outcomes(TWO, facts), ("a", "b"))


def test_a_baseline_that_is_not_the_pinned_one_is_refused():
    arm = read_arm(outcomes(TWO), "a", retries=1)
    check_pin(arm, arm.digest)
    check_pin(arm, None)
    with pytest.raises(DataError, match="not the pinned sha256:00"):
        check_pin(arm, "sha256:00")


def test_audited_outcomes_count_tampered_rollouts_as_failures_in_both_arms():
    table = outcomes(TWO, canary=["marked", None, None, "clean", None])
    found = audited(table)
    np.testing.assert_array_equal(read_arm(found, "a", retries=1).resolved, [[0, 0], [np.nan, np.nan]])
    np.testing.assert_array_equal(read_arm(found, "b", retries=1).resolved, [[1], [0]])
    assert audit_words(table).endswith("1 of a (1 of 1 resolved were audited), 0 of b (1 of 1 resolved were audited)")


def test_an_arm_that_was_never_audited_is_refused_where_audited_outcomes_are_asked_for():
    with pytest.raises(DataError, match="'b' was not audited; run `aem audit`"):
        refuse_unaudited(outcomes(TWO, canary=["clean", None, None, None, None]))
