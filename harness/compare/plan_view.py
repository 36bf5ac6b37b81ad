"""A plan in words and tables: the answer first."""

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aem_harness.harness.compare.fitted import table_of
from aem_harness.harness.compare.plan import MOST_SEEDS
from aem_harness.harness.compare.records import QUESTIONS, Allocation, Components, Plan, Question
from aem_harness.harness.compare.words import amount, chance, percent, points
from aem_harness.harness.errors import counted


def show_plan(plan: Plan, console: Console, spent: Mapping[str, float] | None = None, workers: int = 1) -> None:
    """The answers, the costs with that many rollouts at a time, what K seeds can show, and the assumptions."""
    for line in answers(plan):
        console.print(line, soft_wrap=True)
    if spent:
        seeds = spent["rollouts"] / (2 * plan.tasks)
        pace = f"{plan.components.seconds / 60:,.1f} minutes per rollout (--seconds), {workers} at a time (--workers)"
        what = ", ".join(f"{_cost(value)} {name}" for name, value in spent.items())
        each = f"{seeds:g} seed{'' if seeds == 1 else 's'}"
        console.print(f"cost of {each} per arm: {what}; at {pace}", soft_wrap=True)
    if plan.needed or spent:
        console.print()
    for question, means in zip(QUESTIONS, ("would a rerun agree?", "would new tasks agree?"), strict=True):
        console.print(_table(plan, question, f"{question.capitalize()}: {means}"))
        console.print()
    for line in _legend(plan):
        console.print(f"[dim]{escape(line)}[/dim]", soft_wrap=True)


def _table(plan: Plan, question: Question, title: str) -> Table:
    names = ["rollouts", "std. error", "finds"]
    if plan.difference is not None:
        names.append(f"power at {points(plan.difference)}")
    if plan.margin is not None:
        names.append(f"clears {percent(plan.margin)}")
    table = table_of(title, "seeds per arm", names)
    for row in plan.rows:
        finds = row.detectable[question]
        cells = [f"{row.rollouts:,}", percent(row.se[question], 2), "none" if finds is None else percent(finds)]
        cells += [f"{chance(chances[question])} %" for chances in (row.power, row.passes) if chances]
        table.add_row(str(row.seeds), *cells)
    return table


def _legend(plan: Plan) -> Iterator[str]:
    found = f"finds: the smallest difference detected with {100 * plan.power:g} % power"
    if plan.margin is not None:
        found += "; clears: the chance that an equal candidate is shown to lose no more than that"
    yield f"paired difference on {plan.tasks} tasks, in points; rollouts of both arms together. {found}"
    yield assumptions(plan)


def _cost(value: float) -> str:
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else amount(value)


def answers(plan: Plan) -> list[str]:
    """One sentence for every target and question."""
    out = []
    for key, seeds in plan.needed.items():
        name, _, question = key.partition(", ")
        target = plan.difference if name == "difference" else plan.margin
        assert target is not None
        aim = f"{100 * target:+.1f} points" if name == "difference" else f"at most {100 * target:.1f} points worse"
        if seeds is None:
            out.append(_never(plan, aim, question) if key in plan.never else _many(plan, aim, question))
            continue
        out.append(
            f"{aim} ({question}): {counted(seeds, 'seed')} per arm, {2 * seeds * plan.tasks:,} rollouts in total, "
            f"for {100 * plan.power:g} % power at alpha {plan.alpha:g}"
        )
    return out


def assumptions(plan: Plan) -> str:
    """The assumptions behind the numbers."""
    return assumption_line(plan.components)


def assumption_line(c: Components) -> str:
    """Variance components in words."""
    return (
        f"assumed from {c.source}: {percent(c.rate)} % resolved; shares of rate * (1 - rate): run noise {c.noise:.2f}, "
        f"change between tasks {c.change:.3f}, between repositories {c.repository:.3f}"
    )


def show_allocation(allocation: Allocation, tasks: int, console: Console) -> None:
    """How the seeds are spread, and the rollouts saved."""
    counts = {seeds: allocation.seeds.count(seeds) for seeds in sorted(set(allocation.seeds))}
    spread = ", ".join(f"{number} tasks x {seeds}" for seeds, number in counts.items())
    line = (
        f"allocation by task variance: {allocation.rollouts:,} rollouts per arm over {tasks} tasks ({spread}); the "
        f"same standard error at equal seeds would take {allocation.equal_rollouts:,.0f}: "
        f"{percent(max(allocation.saving, 0), 0)} % saved"
    )
    console.print(line, soft_wrap=True)


def _many(plan: Plan, aim: str, question: str) -> str:
    return f"{aim} ({question}): more than {MOST_SEEDS} seeds per arm on these {plan.tasks} tasks"


def _never(plan: Plan, aim: str, question: str) -> str:
    most: Question = "tasks like these" if question == "tasks like these" else "these tasks"
    found = [finds for row in plan.rows if (finds := row.detectable[most]) is not None]
    best = f"find {percent(min(found))} points at best" if found else "find nothing"
    return (
        f"{aim} ({question}): no number of seeds on these {plan.tasks} tasks suffices; even {plan.rows[-1].seeds} "
        f"{best}, because new tasks and repositories differ"
    )
