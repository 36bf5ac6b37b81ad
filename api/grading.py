"""Anyone's predictions, graded in fresh containers: `aem_harness.grade`; the patches of a run, graded again."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aem_harness.api.running import Finished, Selection, Tasks, choose, enter_run, open_run, perform, quiet
from aem_harness.api.sites import HERE, AtATime, Driver, Where, opened
from aem_harness.harness.errors import ConfigError, DataError, listed, summed_up

if TYPE_CHECKING:
    from rich.console import Console

    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.run.origin import Reuse
    from aem_harness.harness.run.regrading import Again
    from aem_harness.harness.run.sites import Site
    from aem_harness.harness.run.store import Key
    from aem_harness.harness.types import Grade, Prediction, Task


@dataclass(frozen=True)
class How:
    """How patches are graded: containers at a time, seconds for the tests of one instance, memory of a container.

    `canary`: the share of the resolved ones without marks to grade again with canaries; None: no canaries.
    """

    workers: int = 4
    timeout: float = 1800
    memory: str = "4g"
    retry_infrastructure: bool = False
    canary: float | None = None


def grade(
    predictions: str | Path,
    dataset: str = "verified",
    *,
    tasks: Tasks | None = None,
    out: str | Path | None = None,
    workers: int = 4,
    timeout: float = 1800,
    memory: str = "4g",
    retry_infrastructure: bool = False,
    canary: float | None = 0.05,
    reuse: "Reuse | None" = None,
    where: Where = HERE,
    console: "Console | None" = None,
) -> Finished:
    """Grade a predictions file with the official grader; the same call again continues.

    `timeout` is in seconds, for the tests of one instance; `memory` is the limit of a container; `where` they are.
    `reuse` names runs whose verdicts of equal patches are reused. What of the file is left out is said on `console`.
    Raises DataError where nothing in it can be graded.
    """
    console = console or quiet()
    require_file(Path(predictions))
    selection = choose(dataset, console, tasks)
    return grade_all(
        known(Path(predictions), selection, console),
        selection,
        console,
        How(workers, timeout, memory, retry_infrastructure, canary),
        dataset=dataset,
        out=Path(out) if out else None,
        reuse=reuse,
        where=where,
    )


def require_file(path: Path) -> None:
    """DataError where the predictions are missing: before a dataset is looked for, which may take long."""
    if not path.exists():
        raise DataError(f"no such file: {path}")


def known(path: Path, selection: Selection, console: "Console") -> "list[Prediction]":
    """The predictions for instances of the selection; what is left out is said."""
    from aem_harness.harness.grading.predictions import read_predictions

    read = read_predictions(path)
    names = {task.instance_id for task in selection.tasks}
    unknown = [prediction.instance_id for prediction in read.predictions if prediction.instance_id not in names]
    problems = summed_up(read.problems)
    if unknown:
        problems.append(f"{path.name}: not among the chosen instances: {listed(unknown, most=3)}")
    if len(unknown) == len(read.predictions):
        raise DataError(f"{problems[-1]}; nothing to grade")
    for problem in problems:
        console.print(f"[yellow]warning:[/] {problem}", highlight=False, soft_wrap=True)
    return [prediction for prediction in read.predictions if prediction.instance_id in names]


def grade_all(
    predictions: "Sequence[Prediction]",
    selection: Selection,
    console: "Console",
    how: How,
    *,
    dataset: str,
    out: Path | None,
    reuse: "Reuse | None" = None,
    where: Where = HERE,
) -> Finished:
    """Predictions of one model as a run of their own, graded as far as they are not yet."""
    from aem_harness.harness.run.submission import Submission, enter

    if reuse and not where.here:
        raise ConfigError("verdicts of equal predictions are reused with the local engine alone: remove --reuse-from")
    config, folder = _as_run(predictions, how, dataset, out)
    with open_run(folder, config, selection, Submission(), seeds=1) as store:
        enter(store, predictions)
        return perform(
            store,
            selection,
            Driver(Submission()),
            [(prediction.instance_id, 0) for prediction in predictions],
            console,
            AtATime(1, how.workers, "grade_workers"),
            retry_infrastructure=how.retry_infrastructure,
            canary=how.canary,
            reuse=reuse,
            where=where,
        )


def refuse(
    predictions: "Sequence[Prediction]",
    selection: Selection,
    how: How,
    *,
    dataset: str,
    out: Path | None,
) -> None:
    """Raise what `grade_all` would raise before its first container; writes nothing."""
    config, folder = _as_run(predictions, how, dataset, out)
    if (folder / "run.json").is_file():
        enter_run(folder, config, selection, 1).__exit__()


def _as_run(predictions: "Sequence[Prediction]", how: How, dataset: str, out: Path | None) -> "tuple[RunConfig, Path]":
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.run.submission import Submission

    models = {prediction.model_name_or_path for prediction in predictions}
    if len(models) > 1:
        raise DataError(
            f"one model at a time: the file holds predictions of {', '.join(sorted(models))}; give each a file"
        )
    config = RunConfig.load(
        arm=models.pop(),
        dataset=dataset,
        agent=Submission.name,
        grade_timeout=how.timeout,
        limits={"memory": how.memory},
    )
    folder = out or Path("results") / f"{config.arm.replace('/', '__')}-{config.digest}"
    return config, folder


def regrade(
    folders: Sequence[Path],
    dataset: str | None = None,
    *,
    times: int = 1,
    sample: int = 40,
    workers: int = 2,
    where: Where = HERE,
    console: "Console | None" = None,
    tell: "Callable[[Again], None]" = lambda found: None,
) -> "list[Again]":
    """Grade patches of runs again, `times` each: those of tasks whose rate differs between the first run and another
    one, and `sample` others of each run. Returns all such gradings of the runs; their verdicts stay. `tell` is called
    with each one that this call made; the next call repeats those that were lost (`Outcome.ERROR`).

    `dataset` None: that of each run. Raises DataError for a folder that is no run.
    """
    from aem_harness.harness.config import RunConfig
    from aem_harness.harness.io import read_json
    from aem_harness.harness.report.live import warner
    from aem_harness.harness.run.fsck import progress_of
    from aem_harness.harness.run.identity import Identity
    from aem_harness.harness.run.regrading import StoredRun, graded_keys, read_regrades, regrade_patches
    from aem_harness.harness.run.sites import supplied
    from aem_harness.harness.run.store import locked, read_journal
    from aem_harness.harness.run.submission import Submission
    from aem_harness.harness.sandbox.reaping import say_reaped

    console = console or quiet()
    moved = _moved(folders)
    for folder in folders:
        config = RunConfig(**read_json(folder / "run.json")["config"])
        tasks = {task.instance_id: task for task in choose(dataset or config.dataset, console).tasks}
        with locked(folder):
            progress = progress_of(read_journal(folder))
            keys = _chosen([key for key in graded_keys(progress) if key[0] in tasks], moved, sample, folder.name)

            def made(one: "Again", folder: Path = folder) -> None:
                tell(one)
                flipped = "[yellow]flipped[/] " if one.flipped else ""
                console.print(f"{folder.name} {one.instance_id} seed {one.seed}: {flipped}{one.was} -> {one.now}")

            identity, at_a_time = Identity.of(folder, config), AtATime(1, workers, "grade_workers")
            with opened(where, identity, tasks, Driver(Submission()), at_a_time, console) as there:
                site = there.site
                say_reaped(site.reap(), console)

                def grade(task: "Task", prediction: "Prediction", scratch: Path, site: "Site" = site) -> "Grade":
                    return site.grade(task, prediction, scratch, None)

                with supplied(site, folder, config.outage_seconds, warner(console)) as end:
                    regrade_patches(
                        StoredRun(folder, tasks, progress, config),
                        keys,
                        times=times,
                        workers=there.grade_workers,
                        tell=made,
                        grade=grade,
                        end=end,
                    )
    return [one for folder in folders for one in read_regrades(folder)]


def _moved(folders: Sequence[Path]) -> set[str]:
    """Tasks whose rate differs between the first run and another one."""
    from aem_harness.harness.compare.outcomes import load

    rates = [load([folder]).table.groupby("instance_id")["resolved"].mean() for folder in folders]
    first = rates[0]
    return {
        str(task) for other in rates[1:] for task in first.index.intersection(other.index) if first[task] != other[task]
    }


def _chosen(keys: "list[Key]", moved: set[str], sample: int, name: str) -> "dict[Key, bool]":
    """The patches of moved tasks, and `sample` others, the same ones for the same run."""
    others = [key for key in keys if key[0] not in moved]
    drawn = random.Random(name).sample(others, min(sample, len(others)))
    return {key: True for key in keys if key[0] in moved} | dict.fromkeys(drawn, False)
