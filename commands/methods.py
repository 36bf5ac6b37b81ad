"""Which arms are training runs of which method: from the command line, or from the cards of the checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from aem_harness.harness.errors import ConfigError

if TYPE_CHECKING:
    from aem_harness.aem_checkpoints.card import Card
    from aem_harness.harness.compare.outcomes import Outcomes


def as_methods(
    outcomes: "Outcomes", groups: Sequence[str], column: str | None, registry: Path | None = None
) -> "Outcomes":
    """The outcomes with methods as arms and the column `training_run`.

    From `--group`, `--run-column`, an existing column `training_run`, or the cards of the checkpoints.
    """
    from aem_harness.harness.compare.methods import RUN, assigned, by_column, grouped

    if groups and column:
        raise ConfigError("--group joins arms and --run-column splits them: give only one")
    if groups:
        return grouped(outcomes, groups)
    if column or RUN in outcomes.table:
        return by_column(outcomes, column or RUN)
    return assigned(outcomes, _by_cards(outcomes, registry))


def _by_cards(outcomes: "Outcomes", registry: Path | None) -> dict[str, tuple[str, str]]:
    from aem_harness.aem_checkpoints.registry import Registry

    cards = {entry.card.name: entry.card for entry in Registry(registry).entries()}
    places: dict[str, tuple[str, str]] = {}
    said: dict[str, dict[str, set[str]]] = {}
    for arm in outcomes.arms:
        facts = outcomes.facts.get(arm)
        name = str(facts.config.get("checkpoint") or "") if facts else ""
        if name not in cards:
            what = f"checkpoint {name!r} has no card" if name else "it names no registered checkpoint"
            raise ConfigError(
                f"arm {arm!r}: {what}, so its method and training run are unknown; "
                "give --group METHOD=GLOB for each method, or --run-column COLUMN"
            )
        places[arm] = method_of(cards[name])
        for key, value in {**cards[name].method.parameters, "step": cards[name].training.step}.items():
            said.setdefault(places[arm][0], {}).setdefault(key, set()).add(str(value))
    for method, settings in said.items():
        if mixed := [f"{key}: {', '.join(sorted(values))}" for key, values in settings.items() if len(values) > 1]:
            typer.echo(f"{method}: its training runs have different settings ({'; '.join(mixed)})", err=True)
    return places


def method_of(card: "Card") -> tuple[str, str]:
    """`("aem over grpo", "grpo-seed3")`: the method of a checkpoint and its training run.

    A control or another method in AEM's place is no AEM, and none is its base: `step_matched over grpo`.
    """
    method = card.method
    settings = method.parameters
    over = settings.get("control") or settings.get("baseline") or ("aem" if method.kind == "aem" else "")
    over += " reversed" if settings.get("direction") == "reversed" else ""
    over += " shuffled" if settings.get("shuffle_seed") is not None else ""
    name = f"{over} over {method.base}" if over and method.base else method.base or method.kind
    seeds = "-".join(map(str, card.training.seeds))
    run = card.training.run or (f"seed {seeds}" if seeds else card.series)
    return name, run
