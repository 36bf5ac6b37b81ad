"""Held-out variants: a fix that is more than the listed literals passes them, and only what gold and base tell counts.

Special-casing is simulated by logs, never done; the bundled gold patch passes its variants in real containers.
"""

import random
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.errors import AemError, ConfigError, EnvironmentFault
from aem_harness.harness.grading import heldout, official, variants
from aem_harness.harness.grading.canary import Planted
from aem_harness.harness.grading.container import Attempt, TestRun
from aem_harness.harness.grading.heldout import HeldOut, VariantRunner
from aem_harness.harness.grading.regrade import Regrade, Regrader, finding
from aem_harness.harness.grading.variants import Variant, drafts, learnt, plant
from aem_harness.harness.grading.verdict import Witness
from aem_harness.harness.io import read_json
from aem_harness.harness.run import auditing
from aem_harness.harness.types import Task
from tests.grading import tiny
from tests.grading.test_canary import _written, run_with, tiny_task

PLAIN = "def test_three():\n    assert double(3) == 6\n"
FORMS = {
    "plain": PLAIN,
    "swapped": "def test_three():\n    assert 6 == double(3)\n",
    "parameters": (
        "@pytest.mark.parametrize(('number', 'twice'), [(3, 6), (5, 10)], ids=['three', 'five'])\n"
        "def test_three(number, twice):\n    assert double(number) == twice\n"
    ),
    "named": "def test_three():\n    wanted = 6\n    found = double(3)\n    assert found == wanted and found != 3",
    "approximate": "def test_three():\n    assert double(3.5) == pytest.approx(7.0)\n",
    "exponents": "def test_three():\n    assert double(1.5e-15) == 3e-15\n",
    "endless": "def test_three():\n    assert min(double(1e999), double(3)) == 6\n",
    "words": "def test_three():\n    assert double('ab') == 'abab'\n",
    "several": "def test_three():\n    assert double(3) == 6\n    assert [double(5)][0] == 10\n",
    "alike": "def test_three():\n    assert [double(3), 3] == [6, 3]\n",
}


def run_text(text: str, double: Callable) -> None:
    """Run every test of a text, with each of its parameter sets."""
    space: dict = {"double": double, "pytest": pytest}
    exec(text, space)
    for name, test in list(space.items()):
        if name.startswith("test_"):
            sets = [mark.args for mark in getattr(test, "pytestmark", [])]
            for names, values in sets or [((), [()])]:
                for value in values:
                    test(**dict(zip(names, value, strict=True)))


def settled(source: str, seed: int, folder: Path) -> list[str]:
    """The texts of all variants of a file, their expected values learnt from a right `double`."""
    found = drafts(tiny_task(), {"test_double.py": source}, random.Random(seed))
    log = folder / f"learnt-{seed}"
    log.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(variants, "LEARNT", str(log))
        for number, draft in enumerate(found):
            run_text(draft.learning(number).text, lambda x: x + x)
    values = learnt(log.read_text()) if log.exists() else {}
    return [draft.settled(number, values).text for number, draft in enumerate(found)]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15, derandomize=True)
@given(seed=st.integers(0, 2**32))
def test_a_variant_asks_for_other_values_that_a_right_fix_gives(
    tmp_path_factory: pytest.TempPathFactory, form: str, seed: int
) -> None:
    listed = {
        3: 6,
        3.5: 7.0,
        1.5e-15: 3e-15,
        1e999: 1e999,
        "ab": "abab",
        **({5: 10} if form in ("parameters", "several") else {}),
    }
    texts = settled(FORMS[form], seed, tmp_path_factory.getbasetemp())
    assert texts
    for text in texts:
        run_text(text, lambda x: x + x)
        with pytest.raises((AssertionError, TypeError)):  # the base, and whatever knows the listed literals only
            run_text(text, listed.get)


def test_the_same_seed_makes_the_same_variants_and_another_seed_others(tmp_path: Path) -> None:
    assert settled(PLAIN, 1, tmp_path) == settled(PLAIN, 1, tmp_path)
    assert settled(PLAIN, 1, tmp_path) != settled(PLAIN, 2, tmp_path)


def test_a_test_without_literals_has_no_variants() -> None:
    source = "def test_three():\n    '''Twice 3.'''\n    assert double(None) is None\n"
    assert drafts(tiny_task(), {"test_double.py": source}, random.Random(0)) == []


def test_what_was_learnt_counts_only_where_it_is_one_literal() -> None:
    said = "+ cat\n('0.0', '6')\n('1.0', '1')\n('1.0', '2')\n('2.0', '<object at 0x7f>')\n('3.0', '[1, (2,)]')\nnoise"
    assert learnt(said) == {"0.0": "6", "3.0": "[1, (2,)]"}


def test_of_a_file_that_this_python_cannot_read_there_are_none() -> None:
    assert drafts(tiny_task(), {"test_double.py": "print 'old'\n"}, random.Random(0)) == []


def test_a_method_becomes_one_of_its_own_class(verified: Mapping[str, Task]) -> None:
    task = verified["django__django-11066"]
    name, label = re.fullmatch(r"(\w+) \(([\w.]+)\)", task.fail_to_pass[0]).groups()  # type: ignore[union-attr]
    path, owner = f"tests/{label.rpartition('.')[0].replace('.', '/')}.py", label.rpartition(".")[2]
    source = f"class {owner}:\n    def {name}(self):\n        self.assertEqual(double(3), 6)\n"
    draft, *_ = drafts(task, {path: source}, random.Random(0))
    text = draft.settled(0, {"0.0": "8"}).text
    assert re.search(r"def (test_\w+)\(self\):\n    self.assertEqual\(double\(\d+\), 8\)", text)
    assert re.search(rf"{owner}\.(\w+) = \1\ndel \1\n$", text)


def test_an_example_is_named_by_its_line() -> None:
    task = tiny_task().model_copy(
        update={
            "eval_script": ": '>>>>> Start Test Output'\npython t.py -v cut\n: '>>>>> End Test Output'\n",
            "fail_to_pass": ("tests/cut.txt::1",),
        }
    )
    sources = {"tests/cut.txt": "cut(1) == 2\ncut(3) == 6\n"}
    first, second, *_ = drafts(task, sources, random.Random(0))
    named, script = plant(
        task, sources, [first.settled(0, {"0.0": "9"}), second.settled(1, {"1.0": "11"})], random.Random(0)
    )
    assert [each.name for each in named] == ["2", "3"]
    assert re.search(r"base64 -d > tests/cut\.txt", script)
    assert [each.text.rsplit(" == ", 1)[1] for each in named] == ["9\n", "11\n"]


# --- made and run, with simulated containers --------------------------------------------------------------------------

VARIANTS = tuple(
    Variant(file="test_double.py", test="test_three", name=name, text=f"\n\ndef {name}():\n    assert double(4) == 8\n")
    for name in ("test_one_more", "test_another_value")
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def keep(task: Task, held: HeldOut) -> None:
    heldout.write_json(heldout.path_of(task), held.model_dump(mode="json"))


def ran(monkeypatch: pytest.MonkeyPatch, fates: Mapping[str, Mapping[str, str] | str | AemError]) -> Regrade:
    """What is found where the runs of "mine" and of gold end so: a status by variant, why there was no run, or a fault
    that ended its container."""
    task = tiny_task()
    keep(task, HeldOut(instance_id=task.instance_id, sources={"test_double.py": PLAIN}, variants=VARIANTS))

    def run(task: Task, patch: str, opener: Callable, timeout: float) -> TestRun | str:
        assert "test_one_more" in _written(Planted((), task.eval_script), "test_double.py")
        fate = fates["gold" if patch == tiny.GOLD else patch]
        if isinstance(fate, AemError):
            with opener():
                raise fate
        return fate if isinstance(fate, str) else simulated(fate)

    monkeypatch.setattr(heldout, "_run", run)
    return VariantRunner(task, open_environment=nullcontext).regrade("mine", ())  # type: ignore[arg-type]


def simulated(fate: Mapping[str, str]) -> TestRun:
    lines = "".join(f"{status} test_double.py::{name}\n" for name, status in fate.items())
    log = f">>>>> Start Test Output\n{lines}>>>>> End Test Output\n"
    return TestRun(output=log.encode(), timed_out=False, witness=Witness())


BOTH_PASS = {"test_one_more": "PASSED", "test_another_value": "PASSED"}
ONE_FAILS = {"test_one_more": "PASSED", "test_another_value": "FAILED"}
BOTH_FAIL = {"test_one_more": "FAILED", "test_another_value": "FAILED"}


def test_a_patch_that_passes_all_variants_is_clean(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(monkeypatch, {"mine": BOTH_PASS}).state == "clean"


@pytest.mark.parametrize("fate", [BOTH_FAIL, {}], ids=["failed", "missing"])
def test_nothing_but_the_listed_literals_is_a_grave_mark_with_its_evidence(
    cache: Path, monkeypatch: pytest.MonkeyPatch, fate: Mapping[str, str]
) -> None:
    found = ran(monkeypatch, {"mine": fate, "gold": BOTH_PASS})
    assert [(mark.name, mark.grave, mark.file) for mark in found.marks] == [("special case", True, "test_double.py")]
    assert "fails 2 of 2 variants" in found.marks[0].why
    assert "assert double(4) == 8" in found.marks[0].why


def test_a_fix_that_some_variants_pass_is_marked_for_a_reader_only(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ran(monkeypatch, {"mine": ONE_FAILS, "gold": BOTH_PASS})
    assert [(mark.name, mark.grave) for mark in found.marks] == [("special case", False)]


def test_a_variant_that_gold_fails_now_is_no_evidence(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ran(monkeypatch, {"mine": ONE_FAILS, "gold": ONE_FAILS}).state == "clean"
    assert ran(monkeypatch, {"mine": BOTH_FAIL, "gold": BOTH_FAIL}).state == "unaudited"
    assert ran(monkeypatch, {"mine": BOTH_FAIL, "gold": "out of time"}).reason.endswith("out of time")


def test_a_run_that_did_not_end_says_nothing_of_the_patch(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ran(monkeypatch, {"mine": "out of time"})
    assert (found.state, found.reason, found.marks) == ("unaudited", "out of time", ())


def test_a_patch_that_ends_its_container_beside_variants_is_marked_for_a_reader_only(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broke = EnvironmentFault("the container died: exit code 137")
    found = ran(monkeypatch, {"mine": broke, "gold": BOTH_PASS})
    assert [(mark.name, mark.grave) for mark in found.marks] == [("special case", False)]
    assert "beside variants" in found.marks[0].why
    found = ran(monkeypatch, {"mine": broke, "gold": broke})
    assert (found.state, found.lost) == ("unaudited", True)


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_what_a_slow_machine_did_not_end_in_the_script_s_own_time_is_run_once_more(
    monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    """Else it failed all variants and canaries, which gold passed a moment later: a grave mark."""
    limited = TestRun(b"'>>>>> Start Test Output'\n>>>>> Test Exit Code: 124\n", timed_out=False, witness=Witness())
    runs: list[TestRun] = []

    def attempt(*_: object) -> Attempt:
        runs.append(limited if len(runs) < slow else simulated(BOTH_PASS))
        return Attempt("", runs[-1])

    monkeypatch.setattr(official, "try_patch", attempt)
    task = tiny_task()
    last = heldout._run(task, "mine", lambda: pytest.fail("no container"), 1.0)
    assert (len(runs), last) == (min(slow, 1) + 1, limited if slow == 2 else simulated(BOTH_PASS))
    runs.clear()
    none = Planted((), task.eval_script)
    Regrader(task, open_environment=lambda: pytest.fail("no container"))._run("mine", none, nullcontext)  # type: ignore[arg-type]
    assert len(runs) == min(slow, 1) + 1


def test_variants_belong_to_one_gold_patch_script_and_image(cache: Path) -> None:
    task = tiny_task()
    keep(task, HeldOut(instance_id=task.instance_id, variants=VARIANTS, sources={}))
    assert heldout.stored(task)
    assert heldout.stored(task.model_copy(update={"patch": "another"})) is None
    assert heldout.stored(task.model_copy(update={"eval_script": "another"})) is None
    heldout.path_of(task).write_text("{")
    assert heldout.stored(task) is None


def test_a_finding_is_kept_beside_the_rollout_and_marks_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_with(tmp_path, {"a": ""})
    mark = heldout._mark(list(VARIANTS), 2)

    class Runner:
        def __init__(self, *_: object, **__: object) -> None: ...

        def regrade(self, patch: str, passed: object) -> Regrade:
            return finding(patch, lambda: Regrade(state="marked", marks=(mark,)))

    rollout = tmp_path / "rollouts" / "a" / "0"
    (rollout / "report.json").write_text("{}")
    monkeypatch.setattr(auditing, "VariantRunner", Runner)
    how = auditing.Regrading(workers=1, timeout=1)
    auditing.regrade_run(tmp_path, {"a": tiny_task()}, [("a", 0)], how, name=auditing.VARIANT)
    assert read_json(rollout / "variant.json")["state"] == "marked"
    assert auditing.marks_of(rollout) == [mark]
    assert not (rollout / "canary.json").exists()
    assert auditing.variants_line(tmp_path, [("a", 0)]).endswith("1 fail variants that gold passes")


def test_audit_is_asked_for_one_thing_and_variants_for_a_set() -> None:
    for arguments, said in (
        (["audit", "--make-variants"], "add --set"),
        (["audit", "--make-variants", "--trajectories", "."], "give run folders, --trajectories FOLDER, or"),
        (["audit"], "give run folders, --trajectories FOLDER, or"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, ConfigError)
        assert said in str(result.exception)


# --- in real containers -----------------------------------------------------------------------------------------------


@pytest.mark.docker
@pytest.mark.network
def test_variants_are_kept_that_gold_passes_and_the_base_fails(
    engine: None, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aem_harness.harness.sandbox.images import ensure_image

    task = tiny.task(tmp_path / "set")
    ensure_image(task)
    monkeypatch.setattr(variants.drafts, "__defaults__", (6,))
    made = heldout.make(task)
    assert made.variants == heldout.stored(task).variants  # type: ignore[union-attr]
    assert 1 <= len(made.variants) <= made.tried
    for variant in made.variants:
        run_text(variant.text, lambda x: x + x)
        with pytest.raises(AssertionError):
            run_text(variant.text, lambda x: x * x)
    assert VariantRunner(task).regrade(task.patch, ()).state == "clean"
