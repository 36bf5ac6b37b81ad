"""The method certificate: does modulation do, in a world where exploration decides, what it is said to do?

Six arms train the same worlds (`ensemble`), and questions that were fixed beforehand are answered with intervals over
worlds, the training run being the unit. What AEM is compared with is the step-matched control, not its base alone: a
shorter step changes entropy and success too. Every difference is paired by world; the p-values of the QUESTIONS are
adjusted by Holm, everything else is description.
"""

import csv
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from aem_harness.harness.compare.decisions import holm
from aem_harness.training import ensemble
from aem_harness.training.ensemble import ARMS, ArmName, EnsembleConfig

Measured = Mapping[str, Mapping[str, np.ndarray]]  # arm -> outcome -> (W,)
Curves = Mapping[str, Mapping[str, np.ndarray]]  # arm -> measure -> (steps, W)
OUTCOMES = ("entropy_early", "entropy_late", "success_final", "success_area", "correlation")
POWER = 1.96 + 0.8416  # standard errors that a difference must have to be seen with 80 % power at the 5 % level


@dataclass(frozen=True)
class Hypothesis:
    """One question: `outcome` of arm `of`, less that of `minus` (none: zero), and the sign that is predicted."""

    text: str
    outcome: str
    of: ArmName
    minus: ArmName | None
    predicted: int


HYPOTHESES = (
    Hypothesis("Is early entropy higher than the step-matched control's?", "entropy_early", "aem", "step_matched", 1),
    Hypothesis("Is final success higher than the control's?", "success_final", "aem", "step_matched", 1),
    Hypothesis("Is success over all of training higher than the control's?", "success_area", "aem", "step_matched", 1),
    Hypothesis("Do alpha - 1 and S - H(s) correlate negatively?", "correlation", "aem", None, -1),
)


@dataclass(frozen=True)
class Effect:
    """A mean over worlds with its 95 % t-interval, and the smallest effect that 80 % power would have seen."""

    mean: float
    low: float
    high: float
    p: float
    detectable: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def curves(
    config: EnsembleConfig, arms: Sequence[ArmName] = ARMS, report: Callable[[str], None] = lambda _: None
) -> Curves:
    """Train every arm, each in a process of its own, as many at once as there are cores."""
    rate = ensemble.learning_rate(config)
    by_arm: dict[str, dict[str, np.ndarray]] = {}
    with ProcessPoolExecutor(min(len(arms), os.cpu_count() or 1), get_context("spawn")) as pool:
        waiting = {pool.submit(_train, arm, config, rate): arm for arm in arms}
        for done in as_completed(waiting):
            by_arm[waiting[done]] = done.result()
            report(waiting[done])
    return {arm: by_arm[arm] for arm in arms}


def certify(config: EnsembleConfig, folder: Path, *, report: Callable[[str], None] = lambda arm: None) -> Measured:
    """Train all arms and write the certificate into `folder`; `report` is called after each arm, with its name."""
    trained = curves(config, report=report)
    measured = outcomes(trained)
    write(folder, config, measured, trained)
    return measured


def _train(arm: ArmName, config: EnsembleConfig, rate: float) -> dict[str, np.ndarray]:
    torch.set_num_threads(1)
    return {name: values.numpy() for name, values in ensemble.run(arm, config, rate=rate).items()}


def outcomes(curves: Curves) -> Measured:
    """One number a world: early is the steps from 5 to 20 %, late and final the last tenth, area the mean over all."""
    result = {}
    for arm, measures in curves.items():
        steps = len(measures["success"])
        early, late = slice(steps // 20, steps // 5), slice(steps - max(1, steps // 10), steps)
        result[arm] = {
            "entropy_early": measures["response_entropy"][early].mean(0),
            "entropy_late": measures["response_entropy"][late].mean(0),
            "success_final": measures["success"][late].mean(0),
            "success_area": measures["success"].mean(0),
            "correlation": measures["correlation"].mean(0),
        }
    return result


def difference(measured: Measured, outcome: str, of: str, minus: str | None) -> Effect:
    """Paired by world."""
    values = measured[of][outcome] - (measured[minus][outcome] if minus else 0.0)
    return answer(values)


def answer(values: np.ndarray) -> Effect:
    """t-interval and two-sided p of a mean over worlds."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    n, mean, error = len(values), float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5)
    if error == 0.0:
        return Effect(mean, mean, mean, 1.0 if mean == 0.0 else 0.0, 0.0, n)
    half = float(t.ppf(0.975, n - 1)) * error
    p = float(2 * t.sf(abs(mean) / error, n - 1))
    return Effect(mean, mean - half, mean + half, p, POWER * error, n)


def answers(measured: Measured) -> list[tuple[Hypothesis, Effect, float]]:
    """Every question with its answer and its p by Holm."""
    given = [difference(measured, question.outcome, question.of, question.minus) for question in HYPOTHESES]
    return list(zip(HYPOTHESES, given, holm([one.p for one in given]), strict=True))


def verdict(given: Effect, p: float) -> str:
    """The sign, where Holm's p allows to name one."""
    if p >= 0.05:
        return "no difference detected"
    return "positive" if given.mean > 0 else "negative"


def told(given: Effect, p: float) -> str:
    """One line: the verdict, the interval, and what could have been seen."""
    return f"{verdict(given, p)}: {given} over {given.n} runs, p = {p:.2g}; 80 % power from {given.detectable:.4f}"


def table(measured: Measured, curves: Curves) -> str:
    """The certificate as Markdown: the questions, then every arm and its difference to the base and to the control."""
    lines = [
        "| question (declared before the run) | predicted | difference, 95 % | p (Holm) | 80 % power from | answer |",
        "|---|---|---|---|---|---|",
    ]
    for question, given, p in answers(measured):
        sign = "positive" if question.predicted > 0 else "negative"
        lines.append(f"| {question.text} | {sign} | {given} | {p:.2g} | {given.detectable:.4f} | {verdict(given, p)} |")
    lines += ["", "| | " + " | ".join(measured) + " |", "|---|" + "---|" * len(measured)]
    for outcome in OUTCOMES[:-1]:
        lines.append(f"| {outcome} | " + " | ".join(f"{measured[arm][outcome].mean():.3f}" for arm in measured) + " |")
    for name in ("gradient_cosine", "gradient_norm_ratio", "step_length", "alpha_spread", "negative_tokens"):
        lines.append(f"| {name} | " + " | ".join(f"{curves[arm][name].mean():.3f}" for arm in measured) + " |")
    for minus in ("base", "step_matched"):
        lines.append(f"| *minus {minus}:* |" + " |" * len(measured))
        for outcome in OUTCOMES[:-1]:
            cells = [str(difference(measured, outcome, arm, minus)) if arm != minus else "" for arm in measured]
            lines.append(f"| {outcome} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(folder: Path, config: EnsembleConfig, measured: Measured, curves: Curves) -> None:
    """`certificate.json`, `certificate.md`, `outcomes.csv` (one line per arm and world), `certificate.svg`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "certificate.md").write_text(table(measured, curves))
    facts = [
        {
            "question": q.text,
            "predicted": q.predicted,
            **{k: getattr(a, k) for k in a.__dataclass_fields__},
            "p_holm": p,
        }
        for q, a, p in answers(measured)
    ]
    settings = config.model_dump(mode="json")
    (folder / "certificate.json").write_text(json.dumps({"settings": settings, "answers": facts}, indent=2) + "\n")
    with (folder / "outcomes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arm", "world", *OUTCOMES])
        for arm, by_outcome in measured.items():
            for world in range(config.seeds):
                numbers = [f"{by_outcome[name][world]:.6g}" for name in OUTCOMES]
                rows.writerow([arm, config.first_seed + world, *numbers])
    plot(folder / "certificate.svg", curves)


def plot(file: Path, curves: Curves) -> None:
    """Success and response entropy over training, mean and 95 % band over worlds."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "aem"
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for axis, name, label in zip(
        axes, ("success", "response_entropy"), ("success", "response entropy, nats"), strict=True
    ):
        for arm, measures in curves.items():
            mean = measures[name].mean(1)
            half = 1.96 * measures[name].std(1, ddof=1) / measures[name].shape[1] ** 0.5
            (line,) = axis.plot(mean, label=arm, linewidth=1.2)
            axis.fill_between(np.arange(len(mean)), mean - half, mean + half, color=line.get_color(), alpha=0.15, lw=0)
        axis.set_xlabel("step")
        axis.set_ylabel(label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
