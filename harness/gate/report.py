"""The result of a gate, as a record, and as text for people and CI systems: Markdown and JUnit XML."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Literal

import numpy as np

from aem_harness.harness.compare.flips import surest
from aem_harness.harness.compare.records import TaskChange
from aem_harness.harness.compare.regressions import moved, regressions
from aem_harness.harness.compare.values import Trials
from aem_harness.harness.compare.words import points
from aem_harness.harness.errors import counted
from aem_harness.harness.gate.calibrate import Calibration, Share
from aem_harness.harness.gate.config import GateConfig
from aem_harness.harness.gate.design import Arm
from aem_harness.harness.gate.gate import BASELINE, CANDIDATE, Gate, GateVerdict, Look
from aem_harness.harness.gate.methods import RULE
from aem_harness.harness.run.store import now
from aem_harness.harness.types import Record

FLIPS_SHOWN = 15


class GateReport(Record):
    """The result of a gate. Differences are candidate minus baseline, as fractions (0.014 is 1.4 points)."""

    verdict: Literal["PASS", "BLOCK", "INCONCLUSIVE"]
    reason: str
    exit_code: int
    baseline: str
    candidate: str
    config: GateConfig
    tasks: int
    seeds: int
    baseline_seeds: int
    fresh_baseline: bool = False
    rollouts: int
    planned: int
    tokens: float = 0.0
    gpu_hours: float = 0.0
    difference: float
    lower: float
    upper: float
    chance: float
    missing: int
    missing_baseline: int
    verdict_excused: str | None = None
    path: tuple[Look, ...]
    flips: tuple[TaskChange, ...]
    baseline_digest: str
    order_digest: str
    number: int | None = None
    shared: str = ""
    method: str = ""
    rule: str = ""
    calibration: Calibration | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """PASS: the drop is smaller than the margin, with error rate `config.alpha`."""
        return self.verdict == "PASS"

    @property
    def used(self) -> float:
        """Share of the planned rollouts that were used."""
        return self.rollouts / self.planned


def report(
    gate: Gate,
    baseline: Arm,
    candidate: str,
    *,
    calibration: Calibration | None = None,
    number: int | None = None,
    shared: str = "",
    notes: Sequence[str] = (),
) -> GateReport:
    """The report of a gate that has a verdict. If the baseline was run beside the candidate, only its name counts.

    `shared` names the gates among which a sequence shares the error rate of BLOCK.
    """
    assert gate.verdict is not None
    fresh = gate.design.baseline is None
    theirs = gate.consumed_outcomes(BASELINE) if fresh else baseline.select(gate.design.tasks).resolved
    arms = 2 if fresh else 1
    path = gate.path() or [Look(rollouts=0, difference=0.0, lower=-1.0, upper=1.0)]  # ended before the first in order
    return GateReport(
        verdict=gate.verdict.value,
        reason=gate.reason,
        exit_code=gate.verdict.exit_code,
        baseline=baseline.name,
        candidate=candidate,
        config=gate.config,
        tasks=len(gate.design.tasks),
        seeds=gate.design.seeds,
        baseline_seeds=gate.design.seeds if fresh else len(baseline.seeds),
        fresh_baseline=fresh,
        rollouts=gate.consumed * arms,
        planned=gate.most * arms,
        tokens=gate.spent.tokens,
        gpu_hours=gate.spent.gpu_hours,
        difference=path[-1].difference,
        lower=path[-1].lower,
        upper=path[-1].upper,
        chance=gate.chance,
        missing=gate.missing(CANDIDATE),
        missing_baseline=gate.missing(BASELINE) if fresh else baseline.select(gate.design.tasks).missing,
        verdict_excused=gate.verdict_excused(),
        path=tuple(path),
        flips=tuple(flips(gate.design.tasks, theirs, gate.consumed_outcomes(CANDIDATE))),
        baseline_digest=_consumed(gate, baseline.name).digest if fresh else baseline.digest,
        order_digest=gate.design.digest,
        number=number,
        shared=shared,
        method=gate.method,
        rule=RULE,
        calibration=calibration,
        notes=(*notes, *_unexplained(gate, path[-1])),
    )


def _unexplained(gate: Gate, last: Look) -> list[str]:
    """A note on an interval that excludes the margin although there is no verdict."""
    config = gate.config
    clear = last.lower > -config.margin or last.upper < -config.blocks_beyond
    if gate.verdict is not GateVerdict.INCONCLUSIVE or not clear:
        return []
    return ["the interval excludes the margin, but this is not one of the planned looks: it decides nothing"]


def _consumed(gate: Gate, name: str) -> Arm:
    """The consumed outcomes of a baseline that was run beside the candidate, by seed."""
    plan = gate.design
    values = np.full((len(plan.tasks), plan.seeds), np.nan)
    np.put_along_axis(values, plan.seed_of, gate.consumed_outcomes(BASELINE), axis=1)
    return Arm(name, plan.tasks, tuple(range(plan.seeds)), values)


def flips(tasks: Sequence[str], baseline: np.ndarray, candidate: np.ndarray) -> list[TaskChange]:
    """Tasks whose rates differ, the surest first. Outcomes are (N, K), nan where there is none."""
    a, b = _trials(baseline), _trials(candidate)
    both = (a.rollouts > 0) & (b.rollouts > 0)
    if not both.any():
        return []
    names = [task for task, seen in zip(tasks, both, strict=True) if seen]
    a, b = a.where(both), b.where(both)
    posterior = regressions(a, b)
    changes = [
        TaskChange(
            instance_id=names[i],
            solved=(int(a.solved[i]), int(b.solved[i])),
            rollouts=(int(a.rollouts[i]), int(b.rollouts[i])),
            p_worse=float(posterior.worse[i]),
            p_better=float(posterior.better[i]),
        )
        for i in moved(a, b)
    ]
    return surest(changes)


def _trials(outcomes: np.ndarray) -> Trials:
    known = (~np.isnan(outcomes)).sum(axis=1)
    return Trials(np.nansum(outcomes, axis=1).astype(np.int64), known.astype(np.int64), np.zeros(len(known), np.int64))


# --- words ------------------------------------------------------------------------------------------------------------


def level(config: GateConfig) -> str:
    """The level of the intervals: the lower limit errs with alpha, the upper with that of BLOCK, over all looks."""
    return f"{100 * (1 - sum(config.alphas)):.4g} %"


def sentence(result: GateReport) -> str:
    """The verdict in one line."""
    return (
        f"{result.verdict}: {result.candidate} against {result.baseline}, {points(result.difference)} points, "
        f"{level(result.config)} [{points(result.lower)}, {points(result.upper)}] after {result.rollouts} of "
        f"{result.planned} rollouts; {result.reason}"
    )


METHODS = {
    "stages": "group-sequential z-tests; error rates hold approximately",
    "bets": "betting; error rates not proven",
    "one look": "one t-test at the end",
    "finite population": "betting without replacement; error rates proven at any stopping time",
}


def details(result: GateReport) -> list[tuple[str, str]]:
    """Label and text of everything but the verdict, the path and the changed tasks."""
    config = result.config
    alpha, block_alpha = config.alphas
    limits = f"PASS: drop below {100 * config.margin:g} points; BLOCK: drop above {100 * config.blocks_beyond:g}"
    question = {
        "rates": "true resolve rates of this checkpoint on these tasks; run noise of both arms counts",
        "outcomes": "the full tables of outcomes, if every planned rollout were run; a rerun may differ",
    }[config.question]
    if config.launch_sd:
        question += f", and {100 * config.launch_sd:g} points between launches"
    errors = f"false PASS at most {_percent(alpha)}, false BLOCK at most {_percent(block_alpha)}"
    out = [
        ("question", question),
        ("limits", limits),
        ("error rates", f"{errors}; {METHODS[result.method]} (rule {result.rule})"),
    ]
    if result.calibration is not None:
        out.append(("measured", measured(result.calibration, config)))
    elif result.method in ("stages", "bets"):
        out.append(("measured", "not for this gate; `aem calibrate` measures such gates"))
    stored = "run beside the candidate" if result.fresh_baseline else f"{result.baseline_seeds} stored seeds"
    size = f"{counted(result.tasks, 'task')} x {counted(result.seeds, 'seed')}"
    out.append(("design", f"{size}, baseline {stored}; {_chance(result)}"))
    out.append(("rollouts", f"{result.rollouts} of {result.planned} used, {result.planned - result.rollouts} saved"))
    if result.tokens or result.gpu_hours:
        known = f", {result.gpu_hours:.3g} GPU-hours" if result.gpu_hours else ""  # 0: of servers that do not say
        out.append(("spent", f"{result.tokens:,.0f} tokens{known}"))
    if result.missing or result.missing_baseline:
        text = (
            f"{result.missing} of the candidate, {result.missing_baseline} of the baseline; counted as the worst case "
            "for PASS and the best case for BLOCK"
        )
        out.append(("missing", text))
    if result.verdict_excused is not None:
        turned = "" if result.verdict_excused == result.verdict else ", a different verdict"
        out.append(("excused", f"if those of the candidate had failed: {result.verdict_excused}{turned}"))
    if result.number is not None:
        shared = f"false BLOCK at most {_percent(config.alpha)} in {result.shared}, {_percent(block_alpha)} in this one"
        out.append(("sequence", f"gate number {result.number}; {shared}"))
    if config.orders > 1:
        out.append(("orders", f"{config.orders} planned; they share the error rates"))
    out.append(("baseline", result.baseline_digest))
    out.append(("order", f"seed {config.seed}, {result.order_digest}"))
    return out + [("note", note) for note in result.notes]


def measured(rates: Calibration, config: GateConfig) -> str:
    """The measured error rates, and the cost of an equal checkpoint; a rate above the stated one is named."""
    equal, trials = rates.scenarios[0], rates.false_pass.trials
    text = (
        f"an equal checkpoint passes {_share(equal.passed)}, after {_percent(equal.used)} of the rollouts; "
        f"false BLOCK {_share(rates.false_block)}, false PASS of one exactly {100 * rates.margin:g} points worse "
        f"{_share(rates.false_pass)}; {trials} trials each on {rates.source}"
    )
    stated = zip(("false PASS", "false BLOCK"), (rates.false_pass, rates.false_block), config.alphas, strict=True)
    for name, share, alpha in stated:
        if share.low > alpha:
            text += f"; MORE {name} THAN STATED: the {_percent(alpha)} above do not hold here"
        elif share.value > alpha:
            text += f"; {name} above the stated {_percent(alpha)}, within the error of the simulation"
    return text


def chances(gate: Gate) -> str:
    """The forecast before the first rollout."""
    arms = 1 if gate.design.baseline is not None else 2
    text = (
        f"planned: at most {gate.most * arms} rollouts; an equal checkpoint passes with a chance of "
        f"{_percent(gate.chance)}"
    )
    if gate.chance < 0.5:
        text += ": this will probably end INCONCLUSIVE (`aem plan` says how many seeds are needed)"
    return text


def _share(share: Share) -> str:
    return f"{_percent(share.value)} [{_percent(share.low)}, {_percent(share.high)}]"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.2g} %" if fraction < 0.1 else f"{100 * fraction:.0f} %"


def _chance(result: GateReport) -> str:
    text = f"an equal checkpoint passes with a planned chance of {_percent(result.chance)}"
    return text + (": the margin is narrow for so few rollouts" if result.chance < 0.5 else "")


def _counts(flip: TaskChange) -> tuple[str, str]:
    """Resolved and all rollouts of the baseline and of the candidate."""
    before, after = (f"{solved}/{n}" for solved, n in zip(flip.solved, flip.rollouts, strict=True))
    return before, after


# --- terminal ---------------------------------------------------------------------------------------------------------


def to_text(result: GateReport) -> str:
    """For the terminal: the verdict, the interval path, the surest changes, and the details."""
    arms = 2 if result.fresh_baseline else 1
    lines = [sentence(result), ""]
    lines += [
        f"  after {point.rollouts * arms:>5}  {points(point.difference):>6}  "
        f"[{points(point.lower)}, {points(point.upper)}]"
        for point in result.path
    ]
    if result.flips:
        sure = [flip for flip in result.flips if max(flip.p_worse, flip.p_better) >= 0.5]
        lines += ["", f"  {counted(len(result.flips), 'task')} changed; probably real:{'' if sure else ' none'}"]
        lines += [
            f"  {flip.instance_id}  {' -> '.join(_counts(flip))}  "
            f"{'worse' if flip.change < 0 else 'better'} {max(flip.p_worse, flip.p_better):.2f}"
            for flip in sure[:5]
        ]
    lines.append("")
    lines += [f"  {label:<11}  {text}" for label, text in details(result)]
    return "\n".join(lines)


# --- Markdown ---------------------------------------------------------------------------------------------------------


def to_markdown(result: GateReport) -> str:
    """A summary for a job page: verdict, interval path, changed tasks."""
    candidate, baseline = _cell(result.candidate), _cell(result.baseline)
    lines = [
        f"## aem gate: {result.verdict}",
        "",
        f"**{candidate}** against **{baseline}**: {points(result.difference)} points "
        f"{level(result.config)} [{points(result.lower)}, {points(result.upper)}] after {result.rollouts} of "
        f"{result.planned} rollouts ({100 * result.used:.0f} %). {result.reason[:1].upper()}{result.reason[1:]}.",
        "",
        f"| rollouts | difference | {level(result.config)} confidence sequence |",
        "|---:|---:|---|",
        *(
            f"| {p.rollouts * (2 if result.fresh_baseline else 1)} | {points(p.difference)} | "
            f"[{points(p.lower)}, {points(p.upper)}] |"
            for p in result.path
        ),
        "",
    ]
    worse = [flip for flip in result.flips if flip.change < 0]  # the probabilities may both be 0
    better = [flip for flip in result.flips if flip.change > 0]
    for title, some, probability in (("worse", worse, "p_worse"), ("better", better, "p_better")):
        if not some:
            continue
        lines += [
            f"<details><summary>{counted(len(some), 'task')} {title}</summary>",
            "",
            f"| task | {baseline} | {candidate} | probability |",
            "|---|---:|---:|---:|",
        ]
        lines += [
            f"| {_cell(flip.instance_id)} | {' | '.join(_counts(flip))} | {getattr(flip, probability):.2f} |"
            for flip in some[:FLIPS_SHOWN]
        ]
        if len(some) > FLIPS_SHOWN:
            lines.append(f"| and {len(some) - FLIPS_SHOWN} more | | | |")
        lines += ["", "</details>", ""]
    lines += [f"- {label}: {text}" for label, text in details(result)]
    return "\n".join(lines) + "\n"


def _cell(name: str) -> str:
    """A name, escaped for a table cell."""
    return name.replace("|", "\\|")


def refusal_markdown(message: str) -> str:
    """The summary of a gate that gave no verdict."""
    return f"## aem gate: no verdict\n\n{message}\n"


# --- JUnit ------------------------------------------------------------------------------------------------------------

_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(result: GateReport, seconds: float = 0.0) -> str:
    """One test case: BLOCK is a failure, INCONCLUSIVE is skipped; the job still ends with the gate's exit code."""
    name = f"{result.candidate} is at most {100 * result.config.margin:g} points worse than {result.baseline}"
    element = {"BLOCK": "failure", "INCONCLUSIVE": "skipped"}.get(result.verdict)
    return _junit(name, element, sentence(result), to_markdown(result), seconds)


def refusal_junit(message: str, seconds: float = 0.0) -> str:
    """A gate that gave no verdict: an error."""
    return _junit("the gate gives a verdict", "error", message, message, seconds)


def _junit(name: str, element: str | None, message: str, output: str, seconds: float) -> str:
    counts = {kind: str(int(element == tag)) for kind, tag in (("failures", "failure"), ("errors", "error"))}
    counts["skipped"] = str(int(element == "skipped"))
    took = {"time": f"{seconds:.3f}"}
    root = ET.Element("testsuites", {"name": "aem gate", "tests": "1", **counts, **took})
    suite = ET.SubElement(root, "testsuite", {"name": "aem gate", "tests": "1", **counts, **took, "timestamp": now()})
    case = ET.SubElement(suite, "testcase", {"classname": "aem.gate", "name": name, **took})
    if element:
        ET.SubElement(case, element, {"message": message, "type": element}).text = message
    ET.SubElement(case, "system-out").text = output
    ET.indent(root)
    return _NOT_XML.sub("\ufffd", ET.tostring(root, encoding="unicode", xml_declaration=True)) + "\n"
