"""`aem report`: one file that needs nothing else, says plainly what was found, and works in a browser."""

import base64
import gzip
import html
import json
import math
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from aem_harness.cli import app
from aem_harness.harness.compare.compare import CompareOptions, compare
from aem_harness.harness.compare.outcomes import Outcomes, load
from aem_harness.harness.compare.records import Comparison
from aem_harness.harness.compare.words import headline, interaction_lines, points
from aem_harness.harness.interop.trajectories import read_trajectory
from aem_harness.harness.io import read_json, write_json
from aem_harness.harness.report import plots
from aem_harness.harness.report.html import build_report
from aem_harness.harness.report.rollouts import collect, shortened
from aem_harness.harness.report.rollouts import page as read_page


@pytest.fixture(scope="module")
def page(comparison: Comparison, outcomes: Outcomes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "report.html"
    out.write_text(build_report(comparison, outcomes, out))
    return out


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def blobs_of(text: str) -> list[dict[str, Any]]:
    packed = re.findall(r'<script type="text/plain" id="page\d+">(.*?)</script>', text, re.DOTALL)
    return [json.loads(gzip.decompress(base64.b64decode(one))) for one in packed]


# --- what the file holds --------------------------------------------------------------------------------------------


def test_the_page_asks_for_nothing_from_elsewhere(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?:https?:)?//""", text)
    assert not re.findall(r"@import|url\(|<link|<iframe|<img", text)


def test_every_rollout_is_listed_with_its_outcome(page: Path, outcomes: Outcomes) -> None:
    data = data_of(page.read_text())
    columns, table = data["rollouts"], outcomes.table
    assert {len(values) for values in columns.values()} == {len(table)}
    listed = {
        (data["arms"][arm], data["tasks"][task][0], seed, data["outcomes"][outcome])
        for arm, task, seed, outcome in zip(
            columns["arm"], columns["task"], columns["seed"], columns["outcome"], strict=True
        )
    }
    words = table["outcome"].astype(object).where(table["outcome"].notna(), "")
    assert listed == set(zip(table["arm"], table["instance_id"], table["seed"], words, strict=True))


def test_trajectories_travel_in_the_file(page: Path, runs: list[Path]) -> None:
    text = page.read_text()
    data, blobs = data_of(text), blobs_of(text)
    assert len(blobs) == len(data["rollouts"]["task"]) == 2 * 24 * 3
    row = data["rollouts"]["page"].index(0)
    arm, task = data["arms"][data["rollouts"]["arm"][row]], data["tasks"][data["rollouts"]["task"][row]][0]
    folder = runs[0].parent / arm / "rollouts" / task / str(data["rollouts"]["seed"][row])
    document = read_json(folder / f"{task}.traj.json")
    assert [one["text"] for one in blobs[0]["messages"]] == [one["content"] for one in document["messages"]]
    assert blobs[0]["patch"] == (folder / "patch.diff").read_text()
    assert blobs[0]["log"] == (folder / "test_output.txt").read_text()[-12_000:]


def test_integrity_marks_reach_their_rollout(page: Path, runs: list[Path]) -> None:
    data, blobs = data_of(page.read_text()), blobs_of(page.read_text())
    columns = data["rollouts"]
    marked = [row for row, n in enumerate(columns["marks"]) if n]
    assert len(marked) == sum(len(read_json(run / "audit.json")) for run in runs)
    for row in marked:
        assert blobs[columns["page"][row]]["marks"][0]["name"] == "runner hook"


def test_a_budget_keeps_what_moved_and_links_the_rest(
    comparison: Comparison, outcomes: Outcomes, page: Path, tmp_path: Path
) -> None:
    everything = collect(outcomes, comparison, tmp_path / "r.html", 10**9)
    budget = sum(map(len, everything.blobs)) // 3
    pages = collect(outcomes, comparison, tmp_path / "r.html", budget)
    columns = pages.facts["rollouts"]
    assert 0 < len(pages.blobs) < len(everything.blobs)
    assert sum(map(len, pages.blobs)) <= budget
    assert pages.left_out == len(everything.blobs) - len(pages.blobs)
    within = {path for path, number in zip(columns["path"], columns["page"], strict=True) if number >= 0}
    flips = {path for flip in comparison.flips for path in flip.trajectories if path}
    assert {(tmp_path / path).resolve() for path in within} >= {Path(path).resolve() for path in flips}
    assert all((tmp_path / path).is_file() for path in columns["path"])


def test_nothing_in_a_trajectory_can_end_the_script(runs: list[Path], tmp_path: Path) -> None:
    evil = '</script><script>document.title="owned"</script><!--'
    arms = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    trajectory = next(arms[0].glob("rollouts/*/0/*.traj.json"))
    document = read_json(trajectory)
    document["messages"][2]["content"] = evil
    write_json(trajectory, document)
    outcomes = load(arms)
    outcomes.table["cause"] = evil
    text = build_report(compare(outcomes, options=CompareOptions(trajectories=False)), outcomes, tmp_path / "r.html")
    assert text.count("owned") == len(outcomes.table)  # the causes in the list's data, and there only as data
    assert "<script>document" not in text
    assert set(data_of(text)["rollouts"]["cause"]) == {evil}
    assert any(one["messages"][2]["text"] == evil for one in blobs_of(text))


def test_a_missing_trajectory_is_said_not_raised(runs: list[Path], tmp_path: Path) -> None:
    arms = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    outcomes = load(arms)
    next(arms[0].glob("rollouts/*/0/*.traj.json")).unlink()
    text = build_report(compare(outcomes, options=CompareOptions(trajectories=False)), outcomes, tmp_path / "r.html")
    assert sum("problem" in one for one in blobs_of(text)) == 1


def test_the_readers_turns_are_those_that_trajectories_are_compared_by(tmp_path: Path) -> None:
    complaint = {"role": "user", "content": "No command.", "extra": {"model_response": "hm", "mean_entropy": 0.5}}
    messages = [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "```bash\nls\n```"},
        {"role": "user", "content": "out"},
        complaint,
        {"role": "assistant", "content": [{"text": "```bash\ngit diff\n```"}]},
    ]
    path = tmp_path / "p__p-1.traj.json"
    write_json(path, {"info": {}, "messages": messages, "instance_id": "p__p-1"})
    shown = [one["text"] for one in read_page(path, [])["messages"] if one["role"] == "assistant"]
    assert shown == [turn.text for turn in read_trajectory(path).turns]
    steps = [
        {"response": "first", "action": "ls", "observation": "a"},
        {"response": "then", "action": "", "observation": ""},
    ]
    write_json(path, {"info": {}, "trajectory": steps})
    shown = [one["text"] for one in read_page(path, [])["messages"] if one["role"] == "assistant"]
    assert shown == [turn.text for turn in read_trajectory(path).turns]


@pytest.mark.parametrize("content", [[], "text", {"messages": []}])
def test_a_file_that_is_no_trajectory_is_said_on_its_page(tmp_path: Path, content: object) -> None:
    path = tmp_path / "p__p-1.traj.json"
    write_json(path, content)
    assert "is not a trajectory" in read_page(path, [])["problem"]


def test_long_texts_lose_their_middle_and_say_so() -> None:
    text = shortened("a" * 5000 + "b" * 5000, 3000)
    assert text.startswith("a" * 2000)
    assert text.endswith("b" * 1000)
    assert "7000 characters left out" in text
    assert shortened("abc", 3) == "abc"


# --- what it says ---------------------------------------------------------------------------------------------------


def test_the_headline_names_the_better_arm(comparison: Comparison, page: Path) -> None:
    assert comparison.contrasts[0].decision.verdict == "better"
    assert f'<h1 class="good">{html.escape(headline(comparison))}</h1>' in page.read_text()
    assert headline(comparison) == "aem_50 is better than base"


def test_a_null_result_is_said_plainly(runs: list[Path], tmp_path: Path) -> None:
    both = load([f"first={runs[0]}", f"second={runs[0]}"])
    same = compare(both, options=CompareOptions(trajectories=False))
    text = build_report(same, both, tmp_path / "r.html", embed=0)
    assert '<h1 class="">No difference detected between second and first</h1>' in text
    assert "the smallest difference this comparison could detect" in text


def test_a_difference_that_rounds_to_nothing_has_no_direction() -> None:
    assert points(-1e-9) == points(1e-9) == "+0.0"


def test_numbers_in_the_page_are_the_records_numbers(comparison: Comparison, page: Path) -> None:
    text = html.unescape(page.read_text())
    for arm in comparison.arms:
        assert f'<td class="number strong">{100 * arm.resolved.value:.1f}</td>' in text
    difference = comparison.contrasts[0].difference
    assert f'<td class="number strong">{100 * difference.value:+.1f}</td>'.replace("-", "−") in text
    for row in comparison.metrics:
        assert f">{row.name} <" in text


def test_a_series_gets_its_curve_and_a_pair_does_not(runs: list[Path], page: Path, tmp_path: Path) -> None:
    arms = load([f"step-{i}0={run}" for i, run in enumerate([*runs, runs[0]])])
    comparison = compare(arms, options=CompareOptions(trajectories=False, against="previous"))
    assert "<h3>Series</h3>" in build_report(comparison, arms, tmp_path / "r.html", embed=0)
    assert "<h3>Series</h3>" not in page.read_text()


def test_a_contrast_of_contamination_is_a_line_of_the_page(tmp_path: Path) -> None:
    rows = [
        f"{arm},p__p-{i},0,{int(i % k == 0)},202{3 + i % 2}-05-01" for i in range(40) for arm, k in (("a", 2), ("b", 3))
    ]
    (tmp_path / "arms.csv").write_text("\n".join(["arm,instance_id,seed,resolved,created_at", *rows]) + "\n")
    arms = load([tmp_path / "arms.csv"])
    found = compare(arms, options=CompareOptions(cutoff="2024-01-01"))
    (line,) = [one for one in interaction_lines(found) if "issues before and from 2024-01-01" in one]
    assert line in html.unescape(build_report(found, arms, tmp_path / "r.html", embed=0))


def test_arms_of_a_csv_without_trajectories_are_reported_too(tmp_path: Path) -> None:
    rows = [f"{arm},p__p-{i},0,{int(i % k == 0)}" for i in range(30) for arm, k in (("a", 2), ("b", 3))]
    (tmp_path / "arms.csv").write_text("\n".join(["arm,instance_id,seed,resolved", *rows]) + "\n")
    result = CliRunner().invoke(app, ["report", str(tmp_path / "arms.csv"), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 0, result.output
    assert len(data_of((tmp_path / "r.html").read_text())["rollouts"]["task"]) == 60


def test_what_tools_were_worth_is_reported_when_asked(tmp_path: Path) -> None:
    arms = {"native": 0, "prompt": 0, "null": 1, "tool": 2}
    rows = [
        f"{arm},p__p-{i},{seed},{int(i % 4 < 1 + calls)},{calls}"
        for arm, calls in arms.items()
        for i in range(30)
        for seed in range(2)
    ]
    (tmp_path / "arms.csv").write_text("\n".join(["arm,instance_id,seed,resolved,tool_calls", *rows]) + "\n")
    options = ["--calls", "tool,native", "--tax", ",".join(arms), "--out", str(tmp_path / "r.html")]
    result = CliRunner().invoke(app, ["report", str(tmp_path / "arms.csv"), *options])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "r.html").read_text()
    assert "needless calls" in text
    assert "execution gain" in text


# --- plots ----------------------------------------------------------------------------------------------------------

values = st.floats(0, 1, allow_nan=False)


@given(st.lists(st.lists(st.tuples(values, values), min_size=1, max_size=6), min_size=1, max_size=6))
def test_points_and_labels_stay_inside_and_labels_apart(shapes: list[list[tuple[float, float]]]) -> None:
    series = [
        plots.Series(
            f"arm {i}", i, tuple((float(x), y, max(0.0, y - w), min(1.0, y + w)) for x, (y, w) in enumerate(one))
        )
        for i, one in enumerate(shapes)
    ]
    svg = plots.lines(series, title="t", x="x")
    for x, y in re.findall(r"(-?[\d.]+),(-?[\d.]+)", " ".join(re.findall(r'points="([^"]*)"', svg))):
        assert -4 <= float(x) <= plots.WIDTH + 4
        assert -4 <= float(y) <= plots.HEIGHT + 4
    heights = sorted(float(y) for y in re.findall(r'class="label[^>]* y="(-?[\d.]+)"', svg))
    assert all(b - a >= plots.GAP - 0.2 for a, b in pairwise(heights))
    assert heights[-1] <= plots.HEIGHT


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    ticks = plots.nice(low, low + span)
    slack = 1e-6 * max(abs(low), span)
    assert len(ticks) <= 12
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    steps = {round(math.log10(b - a) % 1, 3) for a, b in pairwise(ticks) if b - a > 1e-4 * abs(a)}
    assert len(steps) <= 1 or abs(low) > 1e3 * span


def test_an_interval_is_drawn_where_its_numbers_are() -> None:
    scale = plots.Scale(-0.5, 0.5)
    svg = plots.interval(scale, 0.1, (0.0, 0.2), None, 1)
    assert 'x1="50.00%" x2="70.00%"' in svg
    assert 'cx="60.00%"' in svg
    assert plots.forest_scale([0.1, 0.2]).low < 0  # zero is always in sight


# --- in a browser ---------------------------------------------------------------------------------------------------

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not found:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    return found


def visit(browser: str, file: Path, width: int) -> dict[str, Any]:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += ["--virtual-time-budget=20000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_lists_filters_sorts_and_opens_trajectories(
    browser: str, page: Path, comparison: Comparison, outcomes: Outcomes, runs: list[Path], tmp_path: Path, width: int
) -> None:
    base, candidate = (arm.arm for arm in comparison.arms)
    task = read_json(runs[0] / "audit.json")[0]["instance_id"]
    where = f"#/{task}/{base}:0/{candidate}:1"
    flip = next(one for one in comparison.flips if one.step is not None)
    seeds = [Path(path).parent.name for path in flip.trajectories]
    part = f"#/{flip.instance_id}/{base}:{seeds[0]}/{candidate}:{seeds[1]}/part"
    visitor = Path(__file__).with_name("visit.js").read_text()
    visitor = visitor.replace("WHERE", json.dumps(where)).replace("PART", json.dumps(part))
    text = page.read_text().replace("</body>", f"<script>\n{visitor}</script></body>")
    (tmp_path / "visit.html").write_text(text)
    seen = visit(browser, tmp_path / "visit.html", width)
    rates = outcomes.table.groupby(["instance_id", "arm"])["resolved"].mean().unstack()
    assert seen["errors"] == []
    assert seen["all"] == sorted(rates.index)
    assert set(seen["gained"]) == set(rates.index[rates[candidate] > rates[base]])
    assert set(seen["lost"]) == set(rates.index[rates[candidate] < rates[base]])
    assert seen["django"] == sorted(name for name in rates.index if "django" in name)
    assert seen["sympy"] == [name for name in seen["sorted"] if name.startswith("sympy")]
    assert sorted(seen["sorted"]) == seen["all"]
    assert seen["title"] == task
    assert seen["articles"] == [f"{base}, seed 0", f"{candidate}, seed 1"]
    patches = [(runs[i] / "rollouts" / task / str(i) / "patch.diff").read_text() for i in (0, 1)]
    assert seen["added"] == sum(re.match(r"\+(?!\+\+)", line) is not None for p in patches for line in p.splitlines())
    messages = read_json(runs[0] / "rollouts" / task / "0" / f"{task}.traj.json")["messages"]
    assert seen["messages"] == len(messages)
    assert any("runner hook (grave)" in mark for mark in seen["marks"])
    assert seen["reportHidden"]
    assert seen["back"]
    assert seen["next"] != task
    assert seen["parted"] == [f"turn {flip.step + 1}"] * 2
    assert seen["patchesShut"]
    assert f'href="{part}"' in text
    assert seen["wider"] <= 0


def test_a_report_by_rows_of_ones_own_names_them(tmp_path: Path) -> None:
    lines = [f"{arm},p__p-{i},0,resolved,{'exit_api' if i % 2 else 'submitted'}" for i in range(8) for arm in "ab"]
    (tmp_path / "arms.csv").write_text("\n".join(["arm,instance_id,seed,outcome,end", *lines]) + "\n")
    (tmp_path / "ends.yaml").write_text("exit_api: model\n")
    words = [
        "report",
        str(tmp_path / "arms.csv"),
        "--ends",
        str(tmp_path / "ends.yaml"),
        "--out",
        str(tmp_path / "r.html"),
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert "by --ends, in all arms: exit_api: model" in (tmp_path / "r.html").read_text()
