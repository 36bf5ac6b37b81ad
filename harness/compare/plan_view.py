"""A plan in words and a table."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape

from harness.compare.records import QUESTIONS, Allocation, Plan, Question
from harness.compare.terminal import table_of
from harness.compare.words import amount, percent


def show_plan(plan: Plan, console: Console, spent: Mapping[str, float] | None = None) -> None:
    """The table of what K seeds can show, the answers, the costs and the assumptions."""
    names = ["rollouts", "SE these", "SE like", "finds these", "finds like"]
    if plan.difference is not None:
        names += ["power these", "power like"]
    if plan.margin is not None:
        names += ["passes these", "passes like"]
    title = f"Paired difference on {plan.tasks} tasks, in points"
    table = table_of(title, "seeds an arm", names)
    for row in plan.rows:
        cells = [f"{row.rollouts:,}", *(percent(row.se[q], 2) for q in QUESTIONS)]
        cells += [percent(row.detectable[q]) for q in QUESTIONS]
        for chances in (row.power, row.passes):
            cells += [f"{percent(chances[q], 0)} %" for q in QUESTIONS if chances]
        table.add_row(str(row.seeds), *cells)
    console.print(table)
    console.print()
    for line in answers(plan):
        console.print(line, soft_wrap=True)
    if spent:
        console.print("cost: " + ", ".join(f"{amount(value)} {name}" for name, value in spent.items()), soft_wrap=True)
    console.print(f"[dim]{escape(assumptions(plan))}[/dim]", soft_wrap=True)


def answers(plan: Plan) -> list[str]:
    """One sentence for every target and question."""
    out = []
    for key, seeds in plan.needed.items():
        name, _, question = key.partition(", ")
        target = plan.difference if name == "difference" else plan.margin
        assert target is not None
        aim = f"{100 * target:+.1f} points" if name == "difference" else f"no drop of {100 * target:.1f} points"
        if seeds is None:
            out.append(_never(plan, aim, question))
            continue
        plainly = ", more than 8" if seeds > 8 else ""
        out.append(
            f"{aim} ({question}): {seeds} seeds an arm{plainly}, {2 * seeds * plan.tasks:,} rollouts in all, "
            f"for {percent(plan.power, 0)} % power at alpha {plan.alpha:g}"
        )
    return out


def assumptions(plan: Plan) -> str:
    """Where the numbers come from."""
    c = plan.components
    return (
        f"from {c.source}: {percent(c.rate)} % resolved; shares of rate * (1 - rate): run noise {c.noise:.2f}, change "
        f"between tasks {c.change:.3f}, between repositories {c.repository:.3f}. finds: the difference found with "
        f"{percent(plan.power, 0)} % power; like: on new tasks, clustered by repository"
    )


def show_allocation(allocation: Allocation, tasks: int, console: Console) -> None:
    """How the seeds are spread and what it saves."""
    counts = {seeds: allocation.seeds.count(seeds) for seeds in sorted(set(allocation.seeds))}
    spread = ", ".join(f"{number} tasks x {seeds}" for seeds, number in counts.items())
    line = (
        f"allocation by task variance: {allocation.rollouts:,} rollouts an arm over {tasks} tasks ({spread}); the same "
        f"standard error at equal seeds would take {allocation.equal_rollouts:,.0f}: "
        f"{percent(allocation.saving, 0)} % saved"
    )
    console.print(line, soft_wrap=True)


def _never(plan: Plan, aim: str, question: str) -> str:
    most: Question = "tasks like these" if question == "tasks like these" else "these tasks"
    least = min(row.detectable[most] for row in plan.rows)
    return (
        f"{aim} ({question}): no number of seeds on these {plan.tasks} tasks suffices; even {plan.rows[-1].seeds} "
        f"find {percent(least)} points at best, because new tasks and repositories differ"
    )
