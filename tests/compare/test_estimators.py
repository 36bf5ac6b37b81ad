"""Estimators and tests against scipy, statsmodels, published values and plain-loop versions of themselves."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar as sm_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from aem_harness.harness.compare.bootstrap import bootstrap_differences
from aem_harness.harness.compare.decisions import holm
from aem_harness.harness.compare.interactions import apart
from aem_harness.harness.compare.intervals import cr2, estimate_difference, like_these, of_a_rate, these_tasks
from aem_harness.harness.compare.mcnemar import mcnemar, newcombe, tango, tango_statistic, wilson
from aem_harness.harness.compare.passk import pass_at_k, pass_hat_k, pass_values
from aem_harness.harness.compare.permutation import stratified_permutation
from aem_harness.harness.compare.plan import VERIFIED_REPOS
from aem_harness.harness.compare.regressions import _sharp_maximum, fit_beta, regressions
from aem_harness.harness.compare.values import TaskValues, Trials, count_trials, difference, rates, task_values
from benchmarks.worlds import draw_world, observed, roll


def trials(solved: list[int], rollouts: list[int]) -> Trials:
    return Trials(np.array(solved), np.array(rollouts), np.zeros(len(solved), dtype=np.int64))


def values(numbers: list[float], clusters: list[str] | None = None) -> TaskValues:
    n = len(numbers)
    unknown = np.full(n, np.nan)
    labels = np.array(clusters or ["a/a"] * n)
    return TaskValues(
        tuple(map(str, range(n))),
        np.array(numbers),
        unknown,
        unknown,
        np.zeros(n),
        labels,
        (np.ones(n, dtype=np.int64),),
    )


# --- one rollout a task ---------------------------------------------------------------------------------------------


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemars_exact_test_is_statsmodels(gained: int, lost: int) -> None:
    expected = sm_mcnemar([[5, lost], [gained, 5]], exact=True).pvalue
    assert mcnemar(gained, lost, 100).p == pytest.approx(expected)
    assert mcnemar(gained, lost, 100).p_mid <= mcnemar(gained, lost, 100).p + 1e-12


def test_paired_intervals_reproduce_published_values() -> None:
    # Fagerland, Lydersen and Laake (Stat. Med. 33:2850, 2014), airway hyper-responsiveness: 1, 1 / 7, 12.
    assert tango(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert newcombe(1, 1, 7, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert mcnemar(1, 7, 21).p_mid == pytest.approx(0.0391, abs=5e-5)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 30))
def test_tangos_interval_is_what_its_test_does_not_reject(gained: int, lost: int, same: int) -> None:
    n = gained + lost + same
    if n == 0:
        return
    low, high = tango(gained, lost, n)
    assert low <= (gained - lost) / n <= high
    if low > -1:
        assert tango_statistic(gained, lost, n, low) == pytest.approx(stats.norm.ppf(0.975), abs=1e-5)
    if high < 1:
        assert tango_statistic(gained, lost, n, high) == pytest.approx(-stats.norm.ppf(0.975), abs=1e-5)


@given(st.integers(0, 30), st.integers(1, 30))
def test_wilsons_interval_is_statsmodels(solved: int, more: int) -> None:
    n = solved + more
    assert wilson(solved / n, n) == pytest.approx(proportion_confint(solved, n, method="wilson"), abs=1e-9)


# --- permutation ----------------------------------------------------------------------------------------------------


CELL = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3))


def brute_force(a: Trials, b: Trials) -> float:
    """Enumerate every relabelling of every task's rollouts."""
    tasks = []
    for s_a, n_a, s_b, n_b in zip(a.solved, a.rollouts, b.solved, b.rollouts, strict=True):
        marks = [1] * (s_a + s_b) + [0] * (n_a + n_b - s_a - s_b)
        chosen = [sum(marks[i] for i in pick) for pick in combinations(range(n_a + n_b), int(n_a))]
        tasks.append([(sum(marks) - c) / n_b - c / n_a for c in chosen])
    observed_sum = abs(float((b.solved / b.rollouts - a.solved / a.rollouts).sum()))
    sums = np.array([sum(parts) for parts in product(*tasks)])
    return float((np.abs(sums) >= observed_sum - 1e-9).mean())


@settings(max_examples=60, deadline=None)
@given(st.lists(CELL, min_size=1, max_size=4))
def test_the_exact_distribution_is_that_of_all_relabellings(cells: list[tuple[int, int, int, int]]) -> None:
    a = trials([min(s, n) for n, _, s, _ in cells], [n for n, _, _, _ in cells])
    b = trials([min(s, n) for _, n, _, s in cells], [n for _, n, _, _ in cells])
    found = stratified_permutation(a, b)
    assert found.exact
    assert found.p == pytest.approx(brute_force(a, b))


def test_at_one_rollout_it_is_mcnemars_test() -> None:
    rng = np.random.default_rng(3)
    a, b = (trials(rng.integers(0, 2, 80).tolist(), [1] * 80) for _ in "ab")
    test = mcnemar(int((b.solved > a.solved).sum()), int((a.solved > b.solved).sum()), 80)
    assert stratified_permutation(a, b).p == pytest.approx(test.p)
    assert stratified_permutation(a, b).p_mid == pytest.approx(test.p_mid)


@pytest.mark.parametrize("fewest", [7, 8])
def test_the_exact_distribution_is_the_plain_convolution_of_all_tasks(fewest):
    rng = np.random.default_rng(fewest)
    p = rng.beta(0.25, 0.34, 400)
    n_a, n_b = rng.integers(fewest, 9, (2, 400))
    a, b = (trials(rng.binomial(n, p).tolist(), n.tolist()) for n in (n_a, n_b))
    total, pmf, low, step = a.solved + b.solved, np.ones(1), 0, 56
    for t, one, other in zip(total.tolist(), n_a.tolist(), n_b.tolist(), strict=True):
        splits = np.arange(max(0, t - other), min(t, one) + 1)
        points = (t - splits) * (step // other) - splits * (step // one)
        kernel = np.zeros(np.ptp(points) + 1)
        kernel[points - points.min()] = stats.hypergeom.pmf(splits, one + other, t, one)
        pmf, low = np.convolve(pmf, kernel), low + points.min()
    seen = abs((b.solved * (step // n_b) - a.solved * (step // n_a)).sum())
    support = np.abs(low + np.arange(len(pmf)))
    found = stratified_permutation(a, b)
    assert found.exact
    assert found.p == pytest.approx(pmf[support >= seen].sum(), rel=1e-9)
    assert found.p_mid == pytest.approx(pmf[support >= seen].sum() - pmf[support == seen].sum() / 2, rel=1e-9)


def test_sampling_agrees_with_the_exact_distribution() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.4, 0.6, 40)
    a, b = roll(p, rng.integers(1, 6, 40), rng), roll(np.clip(p + 0.1, 0, 1), rng.integers(1, 6, 40), rng)
    exact = stratified_permutation(a, b)
    sampled = stratified_permutation(a, b, lattice=0)
    assert exact.exact
    assert not sampled.exact
    assert sampled.p == pytest.approx(exact.p, abs=4 * np.sqrt(exact.p / 99_999))


# --- intervals ------------------------------------------------------------------------------------------------------


def test_the_mean_over_tasks_has_students_interval() -> None:
    numbers = np.random.default_rng(0).normal(size=30)
    interval = like_these(values(numbers.tolist()))
    assert interval is not None
    expected = stats.ttest_1samp(numbers, 0).confidence_interval()
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_cr2_matches_its_matrix_definition_and_statsmodels_cr1() -> None:
    """The closed forms against (I - H_gg)^(-1/2) residuals and the trace formula, built as matrices."""
    rng = np.random.default_rng(1)
    labels = np.repeat(["a", "b", "c", "d"], [9, 5, 3, 1])
    y = rng.normal(size=18) + np.repeat(rng.normal(size=4), [9, 5, 3, 1])
    n, ones = len(y), np.ones(len(y))
    hat = np.full((n, n), 1 / n)
    total, rows = 0.0, []
    for label in "abcd":
        at = labels == label
        block = np.eye(at.sum()) - hat[np.ix_(at, at)]
        w, v = np.linalg.eigh(block)
        half = v @ np.diag(w**-0.5) @ v.T
        total += float((ones[at] @ half @ (y - y.mean())[at]) ** 2) / n**2
        rows.append((np.eye(n) - hat)[:, at] @ half @ ones[at] / n)
    omega = np.array(rows) @ np.array(rows).T
    variance, df = cr2(y, labels)
    assert variance == pytest.approx(total)
    assert df == pytest.approx(np.trace(omega) ** 2 / (omega**2).sum())
    groups = pd.factorize(labels)[0]
    cr1 = OLS(y, ones).fit(cov_type="cluster", cov_kwds={"groups": groups}).bse[0] ** 2
    assert cr1 == pytest.approx(variance_cr1(y, groups))
    assert variance > variance_cr1(y, groups) * (3 / 4) * (17 / 18)  # CR2 lies above the uncorrected sandwich


def variance_cr1(y: np.ndarray, groups: np.ndarray) -> float:
    sums = np.bincount(groups, y - y.mean())
    g, n = len(sums), len(y)
    return float((sums**2).sum() / n**2 * g / (g - 1) * (n - 1) / (n - 1))


def test_every_task_its_own_cluster_gives_students_variance() -> None:
    numbers = np.random.default_rng(0).normal(size=12)
    variance, df = cr2(numbers, np.arange(12).astype(str))
    assert variance == pytest.approx(numbers.var(ddof=1) / 12)
    assert df == pytest.approx(11)


def test_verified_counts_as_four_repositories_not_twelve() -> None:
    labels = np.repeat(list(VERIFIED_REPOS), list(VERIFIED_REPOS.values()))
    _, df = cr2(np.random.default_rng(0).normal(size=500), labels)
    assert df == pytest.approx(3.33, abs=0.01)


def test_run_noise_is_unbiased_over_all_outcomes() -> None:
    """E[p^(1 - p^)/(k - 1)] over the binomial is p (1 - p) / k, exactly."""
    k, p = 5, 0.3
    found = rates(trials(list(range(k + 1)), [k] * (k + 1)), tuple("abcdef"), np.full(6, "r"))
    assert float(stats.binom.pmf(range(k + 1), k, p) @ found.noise) == pytest.approx(p * (1 - p) / k)


def test_rates_from_the_table_and_from_counts_agree() -> None:
    rng = np.random.default_rng(0)
    ids = np.repeat([f"x__y-{i}" for i in range(20)], 4)
    table = pd.DataFrame({"instance_id": ids, "repo": "x/y", "resolved": rng.random(80) < 0.5})
    table["resolved"] = table["resolved"].astype("boolean")
    from_table = task_values(table, "resolved")
    from_counts = rates(count_trials(table, from_table.tasks), from_table.tasks, from_table.clusters)
    assert from_table.values == pytest.approx(from_counts.values)
    assert from_table.noise == pytest.approx(from_counts.noise)


def test_all_or_nothing_rates_keep_an_interval() -> None:
    sure = rates(trials([4] * 10, [4] * 10), tuple("abcdefghij"), np.full(10, "r"))
    interval = of_a_rate(these_tasks(sure), 1.0, 40)
    assert 0.9 < interval.low < 1
    assert interval.high == 1
    change = difference(sure, sure)
    assert these_tasks(change).low < 0 < these_tasks(change).high


def test_tasks_without_a_change_exclude_of_new_ones_what_tango_excludes() -> None:
    none = np.zeros(120, dtype=np.int64)
    same = Trials(none, none + 4, none)
    labels = np.array(["a/a"] * 60 + ["b/b"] * 60)
    found = estimate_difference(rates(same, ("",) * 120, labels), rates(same, ("",) * 120, labels)).like
    assert found is not None
    assert (found.low, found.high) == pytest.approx(tango(0, 0, 120))
    low = like_these(rates(same, ("",) * 120, labels), rate=True)
    assert low is not None
    assert low.high == pytest.approx(wilson(0, 120)[1])


# --- bootstrap ------------------------------------------------------------------------------------------------------


def test_each_stage_of_the_bootstrap_has_its_analytic_variance() -> None:
    rng = np.random.default_rng(0)
    world = draw_world(rng, task_spread=0.2)
    a, b = roll(world.baseline, 4, rng), roll(world.candidate, 4, rng)
    delta = difference(observed(a, world.repos), observed(b, world.repos))
    like = like_these(delta, clustered=False)
    assert like is not None
    these, tasks = these_tasks(delta).se ** 2, like.se**2
    for fraction, expected in ((1.0, these), (0.0, tasks), (0.5, 0.5 * these + 0.5 * tasks)):
        draws = bootstrap_differences(a, b, fraction=fraction, draws=20_000)
        assert draws.var() == pytest.approx(expected, rel=0.05)
        assert draws.mean() == pytest.approx(delta.values.mean(), abs=3 * draws.std() / np.sqrt(20_000))


def test_drawing_by_kind_is_drawing_task_by_task() -> None:
    """The same moments as a plain loop over tasks and rollouts with replacement."""
    rng = np.random.default_rng(5)
    a, b = trials([0, 1, 3, 3, 2], [3] * 5), trials([1, 1, 3, 2, 0], [3] * 5)
    fast = bootstrap_differences(a, b, fraction=0.0, draws=40_000)
    rates_a, rates_b = a.solved / 3, b.solved / 3
    picks = rng.integers(0, 5, (40_000, 5))
    slow = (rates_b - rates_a)[picks].mean(axis=1)
    mean = (rates_b - rates_a).mean()
    slow = mean + (slow - mean) * np.sqrt(5 / 4)
    assert fast.std() == pytest.approx(slow.std(), rel=0.02)
    assert stats.skew(fast) == pytest.approx(stats.skew(slow), abs=0.06)


# --- pass@k ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 8), st.data())
def test_pass_at_k_is_the_share_of_subsets_with_a_success(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    marks = [1] * c + [0] * (n - c)
    subsets = list(combinations(marks, k))
    at_least_one = sum(any(s) for s in subsets) / len(subsets)
    assert pass_at_k(np.array([c]), np.array([n]), k)[0] == pytest.approx(at_least_one)
    assert pass_hat_k(np.array([c]), np.array([n]), k)[0] == pytest.approx(sum(all(s) for s in subsets) / len(subsets))


def test_tasks_with_too_few_rollouts_do_not_enter_pass_at_k() -> None:
    found = pass_values(tuple("abc"), np.full(3, "r"), np.array([1, 2, 0]), np.array([1, 4, 4]), 2)
    assert found.tasks == ("b", "c")
    assert np.isnan(pass_at_k(np.array([1]), np.array([1]), 2)[0])


def test_pass_at_one_is_the_resolved_rate_with_its_noise() -> None:
    solved, rollouts = np.array([0, 1, 3, 4]), np.array([4, 4, 4, 4])
    found = pass_values(tuple("abcd"), np.full(4, "r"), solved, rollouts, 1)
    expected = rates(trials(solved.tolist(), rollouts.tolist()), tuple("abcd"), np.full(4, "r"))
    assert found.values == pytest.approx(expected.values)
    assert found.noise == pytest.approx(expected.noise)


# --- families and posteriors ----------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_statsmodels(ps: list[float]) -> None:
    assert holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist())


def test_the_fitted_beta_is_the_one_that_was_drawn_from() -> None:
    rng = np.random.default_rng(0)
    drawn = roll(rng.beta(0.25, 0.34, 20_000), 8, rng)
    assert fit_beta(drawn) == pytest.approx((0.25, 0.34), rel=0.05)


def by_scipy(drawn: Trials) -> tuple[float, float]:
    """The fit by the general optimiser alone, within the same bounds and from the same start."""

    def loss(logs: np.ndarray) -> float:
        return -stats.betabinom.logpmf(drawn.solved, drawn.rollouts, *np.exp(logs)).sum()

    bounds = [(np.log(0.01), np.log(100))] * 2
    return tuple(np.exp(optimize.minimize(loss, np.log([0.5, 0.5]), method="L-BFGS-B", bounds=bounds).x))


@pytest.mark.parametrize("seeds", [2, 4, 8])
@pytest.mark.parametrize(("a", "b"), [(0.25, 0.34), (0.4, 0.2), (1.0, 1.0), (2.0, 0.7)])
def test_a_sharp_maximum_is_that_of_a_general_optimiser(a, b, seeds):
    drawn = roll(np.random.default_rng(seeds).beta(a, b, 500), seeds, np.random.default_rng(0))
    kinds, count = np.unique(np.stack([drawn.solved, drawn.rollouts]), axis=1, return_counts=True)
    found = _sharp_maximum(*kinds.astype(float), count)
    assert found is not None, "the usual case must not need scipy.optimize"
    assert found == fit_beta(drawn) == pytest.approx(by_scipy(drawn), rel=1e-3)


@pytest.mark.parametrize(
    "drawn",
    [
        trials([1, 0, 0, 1, 1, 1], [1] * 6),  # one rollout: any a and b of one ratio are as likely
        trials([0] * 40, [8] * 40),
        trials([8] * 40, [8] * 40),
        trials([4] * 40, [8] * 40),
        trials([1], [2]),
    ],
)
def test_a_flat_likelihood_is_left_to_the_general_optimiser(drawn):
    kinds, count = np.unique(np.stack([drawn.solved, drawn.rollouts]), axis=1, return_counts=True)
    assert _sharp_maximum(*kinds.astype(float), count) is None
    assert all(0.01 * (1 - 1e-9) <= one <= 100 * (1 + 1e-9) for one in fit_beta(drawn))


def test_four_of_four_to_none_is_not_one_of_one_to_none() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.25, 0.34, 300)
    q = np.where(np.arange(300) < 30, rng.beta(0.25, 0.34, 300), p)  # a tenth of the tasks really changed
    once_a, once_b = roll(p, 1, rng), roll(q, 1, rng)
    four_a, four_b = roll(p, 4, rng), roll(q, 4, rng)
    once = regressions(add_task(once_a, 1, 1), add_task(once_b, 0, 1)).worse[-1]
    four = regressions(add_task(four_a, 4, 4), add_task(four_b, 0, 4)).worse[-1]
    assert four > 0.9
    assert once < 0.5


def add_task(arm: Trials, solved: int, rollouts: int) -> Trials:
    return arm.followed_by(trials([solved], [rollouts]))


def test_a_posterior_of_regression_is_right_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    said, was = [], []
    for _ in range(20):
        p = rng.beta(0.25, 0.34, 500)
        q = np.where(rng.random(500) < 0.3, rng.beta(0.25, 0.34, 500), p)
        found = regressions(roll(p, 4, rng), roll(q, 4, rng))
        said.append(found.worse)
        was.append(q < p)
    said_all, was_all = np.concatenate(said), np.concatenate(was)
    for low, high in ((0, 0.1), (0.1, 0.4), (0.4, 0.8), (0.8, 1.01)):
        at = (said_all >= low) & (said_all < high)
        assert was_all[at].mean() == pytest.approx(said_all[at].mean(), abs=0.06)


def test_of_ten_tasks_a_change_is_not_called_surer_than_it_is() -> None:
    """Where most of a few tasks moved, 1/5 -> 0/5 was a change with 95 %; of 80 to 95 % said, 70 % were right."""
    most = np.array([5, 5, 5, 5, 5, 3, 1, 0, 0, 0]), np.array([0, 0, 0, 0, 1, 0, 0, 1, 0, 0])
    found = regressions(*(trials(solved.tolist(), [5] * 10) for solved in most))
    assert found.worse[0] > 0.99
    assert 0.5 < found.worse[6] < 0.9

    rng = np.random.default_rng(0)
    said, was = [], []
    for _ in range(250):
        p = rng.beta(0.5, 0.5, 10)
        q = np.where(rng.random(10) < 0.5, rng.beta(0.5, 0.5, 10), p)
        a, b = roll(p, 5, rng), roll(q, 5, rng)
        found = regressions(a, b)
        fell = b.solved < a.solved
        moved = b.solved != a.solved
        said += np.where(fell, found.worse, found.better)[moved].tolist()
        was += np.where(fell, q < p, q > p)[moved].tolist()
    sure = np.array(said) > 0.8
    assert np.mean(np.array(was)[sure]) == pytest.approx(np.mean(np.array(said)[sure]), abs=0.06)


def test_nothing_changed_is_recognised_as_such() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.25, 0.34, 500)
    found = regressions(roll(p, 4, rng), roll(p, 4, rng))
    assert found.same > 0.9
    assert found.worse.max() < 0.3


def test_parts_in_which_nothing_changed_are_not_known_without_error() -> None:
    """All solved, by both arms, before a date and after it: the change for new tasks is no certain zero."""

    def unchanged(tasks: int) -> TaskValues:
        two = np.full(tasks, 2)
        arm = rates(Trials(two, two, two - 2), tuple(map(str, range(tasks))), np.full(tasks, "a"))
        return difference(arm, arm)

    change, these, like = apart(unchanged(20), unchanged(30))
    assert change == 0
    assert like.low <= these.low < 0 < these.high <= like.high
