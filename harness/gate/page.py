"""The evidence behind a gate's verdict as one HTML file: both arms compared, every trajectory."""

from pathlib import Path

import pandas as pd

from aem_harness.harness.compare.compare import CompareOptions, compare
from aem_harness.harness.compare.outcomes import Outcomes
from aem_harness.harness.ends import Ends
from aem_harness.harness.gate.gate import Gate
from aem_harness.harness.io import write_text
from aem_harness.harness.report.html import build_report

STOPPED = "a gate stopped these runs on their results: the estimates are biased, the gate's own verdict is what counts"


def write_page(path: Path, gate: Gate, outcomes: Outcomes, arms: tuple[str, str], ends: Ends | None = None) -> None:
    """Write the report on the rollouts that the verdict rests on; of a stored baseline, all of the same tasks.

    `arms` are the names of baseline and candidate, `ends` the rows by which the outcomes were read.
    """
    used = pd.MultiIndex.from_tuples(gate.order[: max(gate.consumed, 1)])
    table = outcomes.table
    keys = pd.MultiIndex.from_arrays([table["instance_id"], table["seed"].astype(int)])
    mine = (table["arm"] == arms[1]) & keys.isin(used)
    theirs = (table["arm"] == arms[0]) & table["instance_id"].isin(table["instance_id"][mine])
    if gate.design.baseline is None:
        theirs &= keys.isin(used)
    shown = Outcomes(table[mine | theirs], outcomes.facts)
    comparison = compare(shown, arms[0], options=CompareOptions(margin=gate.config.margin))
    stopped = [STOPPED] if gate.consumed < len(gate.order) else []
    comparison = comparison.model_copy(
        update={"warnings": [*stopped, *comparison.warnings], "ends": ends.overrides if ends else {}}
    )
    lead = f"{gate.verdict.value if gate.verdict else 'INCONCLUSIVE'}: {gate.reason}"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, build_report(comparison, shown, path, lead=lead))
