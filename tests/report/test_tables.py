"""`aem table`: what it prints is what the comparison holds, it compiles, and it can be made again or says why not."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from statsmodels.stats.proportion import proportion_confint
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.compare import compare
from aem_harness.harness.compare.mcnemar import wilson
from aem_harness.harness.compare.outcomes import Outcomes, load
from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.ends import Whose
from aem_harness.harness.errors import ConfigError, DataError
from aem_harness.harness.report.again import TableOptions, make_again, make_table, remember
from aem_harness.harness.report.columns import Cell
from aem_harness.harness.report.formats import COLUMN_WIDTH, FORMATS, TEXT_WIDTH, tex
from aem_harness.harness.report.paper import needs_trajectories, paper_table, transposed
from aem_harness.harness.report.reference import reference

EVERYTHING = (
    "tasks", "seeds", "rollouts", "lost", "resolved", "resolved-like", "official", "highest", "adjusted",
    "adjusted-difference", "difference",
    "difference-like", "p", "p-like", "moved", "verdict", "model", "pass@2", "pass^2", "difficulty", "repository",
    "steps", "steps:diff", "response-entropy", "response-entropy:diff",
)  # fmt: skip


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#")))


def test_csv_holds_the_records_numbers(comparison: Comparison) -> None:
    columns = ("tasks", "resolved", "resolved-like", "difference", "p", "official")
    rows = {row["arm"]: row for row in rows_of(FORMATS["csv"](paper_table(comparison, columns)))}
    (contrast,) = comparison.contrasts
    for arm in comparison.arms:
        row = rows[arm.arm]
        assert int(row["tasks"]) == arm.resolved.tasks
        assert float(row["resolved"]) == pytest.approx(arm.resolved.value, rel=1e-5)
        assert float(row["resolved_low"]) == pytest.approx(arm.resolved.these.low, rel=1e-5)
        assert arm.resolved.like is not None
        assert float(row["resolved-like_high"]) == pytest.approx(arm.resolved.like.high, rel=1e-5)
        assert float(row["official"]) == pytest.approx(arm.official, rel=1e-5)
    assert float(rows[contrast.candidate]["difference"]) == pytest.approx(contrast.difference.value, rel=1e-5)
    assert float(rows[contrast.candidate]["p"]) == pytest.approx(
        contrast.tests[0].p_holm or contrast.tests[0].p, rel=1e-4
    )
    assert rows[contrast.baseline]["difference"] == ""


def test_csv_says_which_columns_the_brackets_and_stars_of_its_notes_are(comparison: Comparison) -> None:
    def note(*columns: str) -> str:
        lines = FORMATS["csv"](paper_table(comparison, columns)).splitlines()
        return [line for line in lines if line.startswith("#")][-1]

    assert "differences are fractions" in note("tasks", "seeds")
    assert "X_low" not in note("tasks", "seeds")
    assert "X_low and X_high are the ends" in note("resolved", "difference")


@pytest.mark.parametrize("format", ["markdown", "latex", "html"])
def test_every_format_prints_rate_interval_and_note(comparison: Comparison, format: str) -> None:
    text = FORMATS[format](paper_table(comparison, hash="0123456789ab"))
    arm = comparison.arms[1]
    assert f"{100 * arm.resolved.value:.1f}" in text
    assert f"[{100 * arm.resolved.these.low:.1f}, {100 * arm.resolved.these.high:.1f}]" in text
    for fact in (
        "K = ",
        "24 tasks",
        "swebench 5.0.2",
        "aem 0.1.0 bash",
        "verified synthetic",
        "Wilson",
        "0123456789ab",
    ):
        assert fact in text


def test_the_note_says_of_how_many_training_runs_the_arms_are(runs: list[Path]) -> None:
    table = load(runs).table
    for models, words in (
        ({"base": "a", "aem_50": "b"}, "One checkpoint, that is one training run, an arm"),
        ({"base": "a"}, "It is not known of how many training runs an arm is"),
    ):
        named = table.assign(model=table["arm"].astype("object").map(models))
        assert words in FORMATS["markdown"](paper_table(compare(Outcomes(named)), ("resolved",)))
    pooled = table.assign(model=table["arm"].astype(str) + (table["seed"] % 2).astype(str))
    text = FORMATS["markdown"](paper_table(compare(Outcomes(pooled)), ("resolved",)))
    assert "Checkpoints pooled as if they were seeds, 2 of base" in text


def test_the_note_counts_what_was_lost(runs: list[Path]) -> None:
    table = load(runs).table
    lost = table.index[(table["arm"] == "base") & table["resolved"].notna()][:2]
    table = table.assign(
        resolved=table["resolved"].mask(table.index.isin(lost)), outcome=table["outcome"].mask(table.index.isin(lost))
    )
    already = int(load(runs).table.query("arm == 'base'")["resolved"].isna().sum())
    text = FORMATS["markdown"](paper_table(compare(Outcomes(table)), ("lost",)))
    assert f"{2 + already} of base" in text


@pytest.mark.parametrize(
    ("p", "stars"), [(0.2, ""), (0.05, ""), (0.049, "*"), (0.0099, "**"), (0.0002, "***"), (None, "")]
)
def test_stars_follow_the_p_value(p: float | None, stars: str) -> None:
    assert Cell("points", value=0.1, p=p).mark == stars


def test_stars_are_of_the_adjusted_p_value(comparison: Comparison) -> None:
    (contrast,) = comparison.contrasts
    tests = tuple(test.model_copy(update={"p": 1e-5, "p_holm": 0.2}) for test in contrast.tests)
    adjusted = comparison.model_copy(update={"contrasts": (contrast.model_copy(update={"tests": tests}),)})
    assert "\\*" not in FORMATS["markdown"](paper_table(adjusted))


def test_every_column_can_be_asked_for(comparison: Comparison) -> None:
    table = paper_table(comparison, EVERYTHING)
    assert len(table.heads) >= len(EVERYTHING)
    assert all(len(cells) == len(table.heads) for _, cells in table.rows)


def test_transposed_twice_holds_the_same_cells(comparison: Comparison) -> None:
    table = paper_table(comparison, ("resolved", "p", "steps"))
    turned = transposed(table)
    assert [name for name, _ in turned.rows] == [head.words for head in table.heads]
    assert [cells for _, cells in transposed(turned).rows] == [cells for _, cells in table.rows]


def test_an_unknown_column_is_named_with_those_there_are(comparison: Comparison) -> None:
    with pytest.raises(ConfigError, match=r"no column 'resolvd'; there are: tasks, seeds, .*steps"):
        paper_table(comparison, ("resolvd",))
    with pytest.raises(ConfigError, match=r"k is one of: 1, 2"):
        paper_table(comparison, ("pass@64",))


def test_trajectories_are_read_only_for_columns_that_need_them() -> None:
    assert not needs_trajectories(["resolved", "steps", "response-entropy:diff"])
    assert needs_trajectories(["entropy-early"])
    assert needs_trajectories(["repeated-commands:diff"])


# --- published figures ----------------------------------------------------------------------------------------------


def test_the_papers_figures_are_marked_as_reported(comparison: Comparison) -> None:
    text = FORMATS["markdown"](paper_table(comparison, references=[reference("aem-paper")]))
    assert "| DeepSWE (as reported) | 500 | ? | 42.3 [38.0, 46.7]‡ |" in text
    assert "| DeepSWE + AEM (as reported) | 500 | ? | 43.7 [39.4, 48.1]‡ | +1.4 |" in text
    assert "arXiv 2605.00425" in text


def test_an_unknown_reference_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no reference 'gpt'; shipped are: aem-paper"):
        reference("gpt")


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95]))
def test_the_binomial_interval_is_statsmodels_own(counts: tuple[int, int], level: float) -> None:
    k, n = counts
    expected = proportion_confint(k, n, alpha=1 - level, method="wilson")
    assert wilson(k / n, n, level) == pytest.approx(expected, abs=1e-9)


# --- LaTeX ----------------------------------------------------------------------------------------------------------


@given(st.text(alphabet="abc\\&%$#_{}~^<>−†‡≥é\u4e2d", max_size=20))
def test_latex_text_holds_no_bare_special_character(text: str) -> None:
    bare = re.sub(r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\$[^$]*\$", "", tex(text))
    assert not set(bare) & set("\\&%$#_{}~^<>")


@pytest.mark.parametrize("transpose", [False, True])
def test_latex_compiles_with_booktabs_alone(runs: list[Path], tmp_path: Path, transpose: bool) -> None:
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed (apt-get install texlive-latex-base texlive-latex-recommended)")
    columns = EVERYTHING if transpose else TableOptions().columns
    options = TableOptions(
        format="latex", columns=columns, references=("aem-paper",), transpose=transpose, caption="50 % & more_"
    )
    (tmp_path / "table.tex").write_text(make_table(list(map(str, runs)), options).text)
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage[margin=2cm]{geometry}\usepackage{booktabs}"
        r"\begin{document}\input{table.tex}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 5_000
    if not transpose:
        assert "Overfull" not in done.stdout


@pytest.mark.parametrize(
    "columns", [("resolved", "resolved-like", "difference", "difference-like"), ("tasks", "adjusted", "difficulty")]
)
def test_the_width_of_a_latex_table_is_known_before_it_is_set(
    runs: list[Path], tmp_path: Path, columns: tuple[str, ...]
) -> None:
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed (apt-get install texlive-latex-base texlive-latex-recommended)")
    made = make_table(list(map(str, runs)), TableOptions(format="latex", columns=columns))
    (tmp_path / "table.tex").write_text(made.text)
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{table.tex}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    beyond = max(map(float, re.findall(r"Overfull \\hbox \(([\d.]+)pt", done.stdout)), default=0.0)
    assert done.returncode == 0, done.stdout[-2000:]
    assert beyond <= 345 * max(0.05, 1.15 * made.width / TEXT_WIDTH - 1)  # an article's lines are 345 pt long


@pytest.mark.parametrize("columns", [("resolved", "p"), ("resolved", "difference", "p"), ("resolved", "moved", "p")])
def test_a_table_that_is_said_to_fit_one_column_of_two_does(
    runs: list[Path], tmp_path: Path, columns: tuple[str, ...]
) -> None:
    if not shutil.which("pdflatex"):
        pytest.skip("pdflatex is not installed (apt-get install texlive-latex-base texlive-latex-recommended)")
    made = make_table(list(map(str, runs)), TableOptions(format="latex", columns=columns))
    assert made.width <= COLUMN_WIDTH
    (tmp_path / "table.tex").write_text(made.text)
    paper = r"\documentclass[twocolumn]{article}\usepackage{booktabs}\begin{document}\input{table.tex}\end{document}"
    (tmp_path / "paper.tex").write_text(paper)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Overfull" not in done.stdout


# --- made again -----------------------------------------------------------------------------------------------------


def aem(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if code == 0 and result.exception:
        raise result.exception
    return result.stdout


@pytest.mark.parametrize("suffix", ["tex", "md", "csv", "html"])
def test_a_table_is_made_again_byte_by_byte(runs: Sequence[Path], tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"table.{suffix}"
    aem("table", *runs, "--out", out, "--reference", "aem-paper", "--columns", "seeds,resolved,difference,steps:diff")
    assert aem("table", "--again", out) == out.read_text()
    (inputs,) = tmp_path.glob("*.json")
    assert inputs.stem in out.read_text()
    assert aem("table", "--again", inputs) == out.read_text()


def test_a_table_that_is_made_again_takes_no_other_form(runs: Sequence[Path], tmp_path: Path) -> None:
    """Options that would change it were ignored without a word."""
    aem("table", *runs, "--out", tmp_path / "table.csv")
    for words in (["--format", "latex"], ["--columns", "tasks"], ["--margin", "2"], ["--registered", "plan.json"]):
        with pytest.raises(ConfigError, match=f"made: remove {words[0]}"):
            aem("table", "--again", tmp_path / "table.csv", *words)


def test_a_table_on_standard_output_is_remembered_by_its_hash(
    runs: Sequence[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    printed = aem("table", *runs)
    found = re.search(r"--again ([0-9a-f]{12})", printed)
    assert found
    assert aem("table", "--again", found[1]) == printed


def test_relative_arms_are_found_from_another_folder(
    runs: Sequence[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs[0].parent)
    out = tmp_path / "table.md"
    aem("table", "base", "aem_50", "--out", out)
    monkeypatch.chdir("/")
    assert aem("table", "--again", out) == out.read_text()


def write_arms(path: Path, resolved: Sequence[tuple[int, int]]) -> Path:
    lines = [f"{a},p__p-{i},0,{r[j]}" for i, r in enumerate(resolved) for j, a in enumerate(("base", "aem"))]
    path.write_text("\n".join(["arm,instance_id,seed,resolved", *lines]) + "\n")
    return path


def test_a_table_of_changed_outcomes_is_refused(tmp_path: Path) -> None:
    resolved = [(i % 2, i % 3 > 0) for i in range(12)]
    arms = write_arms(tmp_path / "arms.csv", [(int(a), int(b)) for a, b in resolved])
    path = remember(make_table([str(arms)], TableOptions()), tmp_path)
    write_arms(arms, [(int(a), int(b) if i else 1 - int(b)) for i, (a, b) in enumerate(resolved)])
    with pytest.raises(DataError, match="the outcomes of aem have changed"):
        make_again(str(path))


def test_a_table_of_another_version_is_refused(tmp_path: Path) -> None:
    arms = write_arms(tmp_path / "arms.csv", [(i % 2, (i + 1) % 2) for i in range(12)])
    path = remember(make_table([str(arms)], TableOptions()), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "aem": "0.0.1"}))
    with pytest.raises(DataError, match=r"made by aem 0\.0\.1"):
        make_again(str(path))


def test_the_hash_is_of_what_happened_not_of_where_it_lies(runs: Sequence[Path], tmp_path: Path) -> None:
    moved = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    options = TableOptions(columns=("resolved", "entropy-early"))
    here, there = (make_table(list(map(str, arms)), options) for arms in (runs, moved))
    assert here.inputs.hash == there.inputs.hash
    other = make_table(list(map(str, runs)), options.model_copy(update={"level": 0.9}))
    assert other.inputs.hash != here.inputs.hash


def test_rows_of_ones_own_are_part_of_a_table_whatever_becomes_of_their_file(tmp_path: Path) -> None:
    arms, ends, out = tmp_path / "arms.csv", tmp_path / "ends.yaml", tmp_path / "table.md"
    ends_of = ("resolved,submitted", "unresolved,exit_api", "unresolved,submitted")
    lines = [f"{arm},p__p-{i},0,{ends_of[i % 3]}" for i in range(12) for arm in ("base", "aem")]
    arms.write_text("\n".join(["arm,instance_id,seed,outcome,end", *lines]) + "\n")
    ends.write_text("exit_api: model\n")
    aem("table", arms, "--ends", ends, "--out", out)
    text = out.read_text()
    assert "by --ends, in all arms: exit_api: model." in text
    ends.write_text("exit_api: operator\n")
    assert aem("table", "--again", out) == text
    ends.unlink()
    assert aem("table", "--again", out) == text
    plain, own = (make_table([str(arms)], TableOptions(ends=rows)) for rows in ({}, {"exit_api": Whose.MODEL}))
    assert own.text != plain.text
    assert own.inputs.hash != plain.inputs.hash
    assert own.inputs.outcomes != plain.inputs.outcomes


def test_a_table_without_rows_of_ones_own_keeps_the_hash_that_it_had_before_there_were_any() -> None:
    assert "ends" not in TableOptions().facts()
    assert TableOptions(ends={"exit_api": Whose.MODEL}).facts()["ends"] == {"exit_api": "model"}


def test_a_file_without_its_note_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.md").write_text("| a | b |\n")
    with pytest.raises(ConfigError, match="not a table of aem"):
        make_again(str(tmp_path / "old.md"))
    with pytest.raises(ConfigError, match=r"no ffffffffffff\.json"):
        make_again("ffffffffffff")


@pytest.mark.parametrize("text", ["[]", "{}", '{"hash": "x"}'])
def test_inputs_that_are_none_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=r"t\.json does not hold the inputs of a table: .*"):
        make_again(str(tmp_path / "t.json"))


def test_a_table_is_made_again_on_another_machine_from_where_its_arms_are_there(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    arms = write_arms(here / "arms.csv", [(i % 2, int(i % 3 > 0)) for i in range(12)])
    made = make_table([str(arms)], TableOptions())
    path = remember(made, here)
    shutil.copytree(here, there)
    shutil.rmtree(here)
    with pytest.raises(DataError, match="give the present place of its arms: aem table --again"):
        make_again(str(there / path.name))
    assert make_again(str(there / path.name), sources=[str(there / "arms.csv")]).text == made.text
    inputs = json.loads((there / path.name).read_text())
    (there / path.name).write_text(json.dumps({**inputs, "folder": "no/such/folder"}))
    with pytest.raises(DataError, match="a folder that does not exist here"):
        make_again(str(there / path.name))


def test_arms_given_anew_in_another_order_make_the_same_table(tmp_path: Path) -> None:
    both = write_arms(tmp_path / "arms.csv", [(i % 2, int(i % 3 > 0)) for i in range(12)])
    made = make_table([f"{both}:base", f"{both}:aem"], TableOptions())
    path = remember(made, tmp_path)
    assert make_again(str(path), sources=[f"{both}:aem", f"{both}:base"]).text == made.text


def unequal(path: Path) -> Path:
    """Baseline on 12 tasks, of which the candidate has 8, and solves fewer of them."""
    rows = [("base", i, i % 2) for i in range(12)] + [("aem", i, int(i % 4 == 1)) for i in range(8)]
    lines = [f"{arm},p__p-{i},0,{resolved}" for arm, i, resolved in rows]
    path.write_text("\n".join(["arm,instance_id,seed,resolved", *lines]) + "\n")
    return path


def test_rates_and_a_difference_over_other_tasks_say_so_loudly(tmp_path: Path) -> None:
    text = make_table([str(unequal(tmp_path / "arms.csv"))], TableOptions()).text
    assert "]¶" in text or "]†¶" in text
    assert "THE ARMS HAVE DIFFERENT TASKS: aem − base over the 8 tasks of both" in text
    assert "resolve 25.0 and 50.0 %" in text
    assert "none lost" not in text


def test_common_restricts_rates_and_numbers_too(tmp_path: Path) -> None:
    text = make_table([str(unequal(tmp_path / "arms.csv"))], TableOptions(common=True, format="csv")).text
    rows = {row["arm"]: row for row in rows_of(text)}
    assert rows["base"]["tasks"] == rows["aem"]["tasks"] == "8"
    gap = float(rows["aem"]["resolved"]) - float(rows["base"]["resolved"])
    assert gap == pytest.approx(float(rows["aem"]["difference"]))


def test_every_pair_of_arms_has_a_row_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "three.csv"
    lines = [f"{arm},p__p-{i},0,{int(i % n == 0)}" for arm, n in (("a", 2), ("b", 3), ("c", 4)) for i in range(12)]
    path.write_text("\n".join(["arm,instance_id,seed,resolved", *lines]) + "\n")
    names = [row["arm"] for row in rows_of(make_table([str(path)], TableOptions(all_pairs=True, format="csv")).text)]
    assert names == ["a", "b", "c", "b − a", "c − a", "c − b"]


def test_a_wide_table_spans_both_columns_and_its_caption_holds_no_digest(tmp_path: Path) -> None:
    arms = write_arms(tmp_path / "arms.csv", [(i % 2, int(i % 3 > 0)) for i in range(12)])
    table = load([str(arms)]).table.assign(dataset="verified 0123456789ab")
    table.to_csv(arms, index=False)
    text = make_table([str(arms)], TableOptions(format="latex", wide=True)).text
    assert r"\begin{table*}" in text
    assert r"\caption{Resolved tasks of verified}" in text
    assert "dataset: verified 0123456789ab" in text


def test_a_run_that_is_being_written_is_called_running_not_lost(runs: Sequence[Path], tmp_path: Path) -> None:
    from aem_harness.harness.run.store import locked

    live = shutil.copytree(runs[1], tmp_path / "live")
    journal = (live / "journal.jsonl").read_text().splitlines(keepends=True)
    (live / "journal.jsonl").write_text("".join(journal[:-2]))
    with locked(live):
        found = compare(load([str(runs[0]), str(live)]))
    assert found.arms[1].status == "running"
    assert any("is still running" in line for line in found.warnings)
    (live / "stopped.json").write_text('{"reason": "BLOCK"}')
    found = compare(load([str(runs[0]), str(live)]))
    assert any("stopped because of its results" in line for line in found.warnings)


def test_a_comparison_fits_eighty_columns(comparison: Comparison) -> None:
    from aem_harness.harness.compare.export import to_text

    text = to_text(comparison, width=80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert not [line for line in text.splitlines() if line.count("[") != line.count("]")], "intervals in two lines"


def test_the_lines_under_a_comparison_explain_what_it_shows_and_nothing_else(comparison: Comparison) -> None:
    from aem_harness.harness.compare.terminal import show

    for brief in (False, True):
        text = io.StringIO()
        show(comparison, Console(file=text, width=80), brief=brief)
        shown = text.getvalue()
        assert ("]*" in shown) == ("* from an upper bound" in shown)
        assert ("(p adjusted, Holm)" in shown) == ("alone: the p-value" in shown)


def two_way_arms(folder: Path, seeds: int = 3) -> Path:
    """Two checkpoints under two scaffolds: aem gains 10 points with bash, and all tasks with deepswe."""
    solved = {("bash", "base"): 2, ("bash", "aem"): 4, ("deep_swe", "base"): 2, ("deep_swe", "aem"): 20}
    rows = [
        f"{scaffold}-{model},r{task % 4}__r-{task},{seed},{int((task + seed) % 20 < n)},{scaffold},{model}"
        for (scaffold, model), n in solved.items()
        for task in range(20)
        for seed in range(seeds)
    ]
    path = folder / "both.csv"
    path.write_text("\n".join(["arm,instance_id,seed,resolved,scaffold,model", *rows]) + "\n")
    return path


def test_a_two_way_table_prints_rates_gains_and_the_interaction_in_every_format(tmp_path: Path) -> None:
    source = str(two_way_arms(tmp_path))
    made = {name: make_table([source], TableOptions(format=name, two_way="scaffold,model")).text for name in FORMATS}
    bash, deep = rows_of(made["csv"])
    assert [bash["scaffold"], deep["scaffold"]] == ["bash", "deep_swe"]
    assert [float(bash["aem:gain"]), float(deep["aem:gain"])] == pytest.approx([0.1, 0.9])
    assert float(deep["aem:interaction"]) == pytest.approx(0.8)
    assert (bash["aem:interaction"], bash["aem:p"]) == ("", "")
    assert float(deep["aem:p"]) < 1e-4
    assert "+80.0\\*\\*\\*" in made["markdown"]
    assert r"deep\_swe" in made["latex"]
    for text in made.values():
        assert "n = 20 tasks, K = 3 rollouts of each task; none lost" in text
        assert "t test for these tasks" in text


@pytest.mark.parametrize("format", ["markdown", "latex", "csv", "html"])
def test_a_two_way_table_is_made_again_from_its_file(tmp_path: Path, monkeypatch, format: str) -> None:
    monkeypatch.chdir(tmp_path)
    source = two_way_arms(tmp_path)
    shown = CliRunner().invoke(
        app,
        ["table", source.name, "--two-way", "scaffold,model", "--format", format, "--transpose", "--out", "made.txt"],
    )
    assert shown.exit_code == 0, shown.output
    again = CliRunner().invoke(app, ["table", "--again", "made.txt"])
    assert again.stdout == Path("made.txt").read_text()
    source.write_text(source.read_text().replace(",0,1,bash,aem", ",0,0,bash,aem", 1))
    with pytest.raises(DataError, match="outcomes of bash-aem have changed"):
        make_again("made.txt", tmp_path)


def test_a_two_way_table_says_what_was_lost_and_how_far_it_could_move_the_interaction(tmp_path: Path) -> None:
    source = two_way_arms(tmp_path)
    source.write_text(source.read_text().replace(",0,1,deep_swe,aem", ",0,,deep_swe,aem", 1))
    text = make_table([str(source)], TableOptions(two_way="scaffold,model")).text
    assert "K = 2-3 rollouts of each task; 1 rollout without a verdict left out" in text
    assert "Whatever the rollouts without a verdict were, less that of bash: aem with deep_swe [+78.3, +80.0]" in text


def test_a_two_way_table_refuses_options_that_it_would_not_heed(tmp_path: Path) -> None:
    options = TableOptions(two_way="scaffold,model", series=True, references=("aem-paper",))
    with pytest.raises(ConfigError, match="--series, --reference have no effect with --two-way"):
        make_table([str(two_way_arms(tmp_path))], options)


def test_a_table_without_later_options_keeps_its_hash() -> None:
    assert set(TableOptions().facts()) & {"two_way", "ends"} == set()
