"""The end of `aem run` and `aem grade`: summary and exit code."""

from typing import TYPE_CHECKING

from aem_harness.harness.errors import counted

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.api.running import Finished


def conclude(finished: "Finished", console: "Console") -> int:
    """Print how a run ended; returns the exit code."""
    from rich.console import Console as RichConsole

    from aem_harness.harness.report.runs import closing
    from aem_harness.harness.report.tables import run_summary
    from aem_harness.harness.run.listing import read_state

    RichConsole().print(
        run_summary(finished.folder, finished.counts, n=finished.tasks, seeds=finished.seeds, ends=finished.ends)
    )
    RichConsole(soft_wrap=True).print(closing(read_state(finished.folder)), highlight=False)
    for remark in finished.remarks:
        console.print(f"[yellow]note:[/] {remark}", highlight=False, soft_wrap=True)
    if finished.suspect:
        console.print(f"resolved, but with a grave integrity mark (see audit.json): {', '.join(finished.suspect)}")
    if finished.vain:
        console.print(f"[yellow]warning:[/] {finished.vain}", highlight=False, soft_wrap=True)
    if finished.lost:
        console.print(f"{counted(finished.lost, 'rollout')} lost to infrastructure; repeat with --retry infra")
    if finished.unaudited:
        lost = counted(finished.unaudited, "regrade")
        console.print(f"{lost} with canaries lost to infrastructure; the same command, or aem audit, repeats them")
    return finished.exit_code
