"""Held-out variants in containers: made and validated once for a task, then run with the patch of a resolved rollout.

Only variants that the gold patch passes and the base fails are kept, in the cache folder. One that a patch fails is put
to a control: gold beside the same variants, at the same time.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aem_harness.harness.errors import AemError
from aem_harness.harness.grading import official
from aem_harness.harness.grading.audit import Mark
from aem_harness.harness.grading.canary import PASSING, statuses_by_name
from aem_harness.harness.grading.container import TestRun, run_tests
from aem_harness.harness.grading.regrade import Broken, Regrade, SecondGrader, read_sources, whole
from aem_harness.harness.grading.variants import LEARNT, Variant, drafts, learnt, plant
from aem_harness.harness.io import cache_folder, read_json, write_json
from aem_harness.harness.types import Record, Task

KEPT = 6  # of an instance


class HeldOut(Record):
    """The validated variants of one instance, with the text of the test files they are added to.

    `tried` counts the candidates of this `seed`; `reason` says why none was kept.
    """

    instance_id: str
    seed: int = 0
    sources: Mapping[str, str] = {}
    variants: tuple[Variant, ...] = ()
    tried: int = 0
    reason: str = ""


def path_of(task: Task) -> Path:
    """Where the variants of a task are kept: another image, script or gold patch makes another file."""
    facts = json.dumps([task.instance.image, task.eval_script, task.patch])
    digest = hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return cache_folder("variants") / f"{task.instance_id}-{digest}.json"


def stored(task: Task) -> HeldOut | None:
    """What was made of a task, with or without variants; None where nothing was made, or it cannot be read."""
    try:
        path = path_of(task)
        return HeldOut(**read_json(path)) if path.is_file() else None
    except (AemError, OSError, TypeError, ValidationError):
        return None


def make(task: Task, *, seed: int = 0, timeout: float = 1800, limits: Any = None) -> HeldOut:
    """Make, validate and keep the variants of a task: three runs of its tests (gold twice, the base once).

    The same seed makes the same candidates. Raises AemError where containers fail; nothing is kept then.
    """
    open_environment = official.opener(task, limits, {})[1]
    found = _made(task, random.Random(f"{seed}/{task.instance_id}"), open_environment, timeout)
    found = found.model_copy(update={"seed": seed})
    keep(task, found)
    return found


def keep(task: Task, found: HeldOut) -> None:
    """Write what was made of a task into the cache folder."""
    write_json(path_of(task), found.model_dump(mode="json"))


def _made(task: Task, chance: random.Random, open_environment: official.OpenEnvironment, timeout: float) -> HeldOut:
    sources = read_sources(task, open_environment)
    candidates = drafts(task, sources, chance)
    none = HeldOut(instance_id=task.instance_id, tried=len(candidates))
    if not candidates:
        return none.model_copy(update={"reason": "no listed test has literals that can be changed"})
    _, script = plant(task, sources, [each.learning(number) for number, each in enumerate(candidates)], chance)
    said = _gold_run(task, f"{script.rstrip()}\ncat {LEARNT}\n", open_environment, timeout)
    if isinstance(said, str):
        return none.model_copy(update={"reason": said})
    values = learnt(said.output.decode(errors="replace"))
    variants, script = plant(
        task, sources, [each.settled(number, values) for number, each in enumerate(candidates)], chance
    )
    gold = _gold_run(task, script, open_environment, timeout)
    if isinstance(gold, str):
        return none.model_copy(update={"reason": gold})
    good = _passed(task, gold, variants)
    if not good:
        return none.model_copy(update={"reason": "gold passes none of the candidates"})
    with open_environment() as environment:
        base_task = task.model_copy(update={"eval_script": script})
        base = run_tests(environment, official.eval_script(base_task), timeout)
    if base.timed_out:
        return none.model_copy(update={"reason": f"out of time ({timeout:g} s) with the base"})
    kept = [each for each in good if each not in _passed(task, base, variants)][:KEPT]
    if not kept:
        return none.model_copy(update={"reason": "the base passes all of the candidates that gold passes"})
    files = {variant.file: sources[variant.file] for variant in kept}
    lines = [each.model_copy(update={"name": ""}) if each.name.isdecimal() else each for each in kept]
    return none.model_copy(update={"sources": files, "variants": tuple(lines)})


def _gold_run(task: Task, script: str, open_environment: official.OpenEnvironment, timeout: float) -> TestRun | str:
    return _run(task.model_copy(update={"eval_script": script}), task.patch, open_environment, timeout)


def _run(task: Task, patch: str, open_environment: official.OpenEnvironment, timeout: float) -> TestRun | str:
    """The run of a patch; the reason, in words, if there is no result."""
    attempt = official.try_patch_patiently(task, patch, open_environment, timeout)
    if attempt.run is None:
        return "the patch could not be applied"
    return f"out of time ({timeout:g} s) with variants" if attempt.run.timed_out else whole(attempt.run)


def _passed(task: Task, run: TestRun, variants: Iterable[Variant]) -> list[Variant]:
    seen = statuses_by_name(official.log_statuses(task, run.output.decode(errors="replace")))
    return [each for each in variants if seen.get(each.name) and seen[each.name] <= set(PASSING)]


class VariantRunner(SecondGrader):
    """Runs patches of one task with its validated variants, all in one container per patch."""

    name, beside, grave = "special case", "variants", False  # one variant is enough to break what all run in

    def __init__(self, task: Task, **how: Any) -> None:
        super().__init__(task, **how)
        self._held = stored(task)

    def _regrade(self, patch: str, passed: frozenset[str]) -> Regrade | Broken:
        if self._held is None or not self._held.variants:
            return Regrade(state="unaudited", reason="no variants were made of this instance")
        variants, script = plant(self._task, self._held.sources, self._held.variants, random.SystemRandom())
        task = self._task.model_copy(update={"eval_script": script})
        run = self._ran(lambda opener: _run(task, patch, opener, self._timeout))
        if isinstance(run, str):
            return Regrade(state="unaudited", reason=run)
        passing = [] if isinstance(run, Broken) else _passed(task, run, variants)
        if len(passing) == len(variants):
            return Regrade(state="clean")
        control = _run(task, task.patch, self._open, self._timeout)
        if isinstance(control, str):
            return Regrade(state="unaudited", reason=f"gold with the same variants: {control}")
        if isinstance(run, Broken):
            return run
        told = _passed(task, control, variants)
        failed = [each for each in told if each not in passing]
        if not failed:
            return Regrade(state="clean" if told else "unaudited", reason="" if told else "gold fails the variants too")
        return Regrade(state="marked", marks=(_mark(failed, len(told)),))


def _mark(failed: list[Variant], told: int) -> Mark:
    """Grave where nothing but the listed literals works; where some variants pass, it may be an incomplete fix."""
    first = failed[0]
    shown = " ".join(first.text.split())
    why = (
        f"passes the listed tests and fails {len(failed)} of {told} variants with other literals, which gold passes; "
        f"the first, of {first.test}: {shown[:300]}"
    )
    return Mark(name="special case", file=first.file, why=why, grave=len(failed) == told > 1)
