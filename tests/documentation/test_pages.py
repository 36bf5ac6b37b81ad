"""The documentation does what it says: its commands run, and its generated parts fit the code."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from aem_harness.cli import app
from tests.conftest import ROOT

DOCS = ROOT / "docs"
SOURCES = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCES, "NO_MKDOCS_2_WARNING": "1"}


def blocks(page: Path) -> list[str]:
    """The blocks marked `bash`, which are run; those marked `sh` need what a test has not, and are only shown."""
    return re.findall(r"^```bash\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


PAGES = sorted(page for page in DOCS.rglob("*.md") if blocks(page))


@pytest.mark.docker
@pytest.mark.extended
@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_runs_in_its_order(page, tmp_path):
    pytest.importorskip("torch", reason="the fallback server runs on torch")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "aem").write_text(f'#!/bin/sh\nexec {sys.executable} -m aem_harness.cli "$@"\n')
    (programs / "aem").chmod(0o755)
    work = tmp_path / page.stem
    work.mkdir()
    environment = {**ENVIRONMENT, "PATH": f"{programs}:{os.environ['PATH']}", "AEM_SERVER": "transformers"}
    for block in blocks(page):
        words = ["bash", "-euo", "pipefail", "-c", block.replace("PYTHONPATH=.", f"PYTHONPATH={work}:{SOURCES}")]
        done = subprocess.run(words, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_tutorial_and_the_guides_have_blocks_that_run():
    assert {"tutorial", "own-agent", "own-dataset", "own-format"} <= {page.stem for page in PAGES}


def test_the_reference_holds_the_help_of_every_command():
    words = [sys.executable, "-c", "from docs._site.commands import commands_page; print(commands_page())"]
    page = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    for command in ("run", "grade", "compare", "gate", "plan", "checkpoints add", "runs archive"):
        assert f"\nUsage: aem {command} [OPTIONS]" in page
    typed = re.findall(r"^  (-.*?)(?:  |$)", page, re.MULTILINE)
    assert len(typed) > 100
    assert not [option for option in typed if re.search(r"<(str|int|float|path|list)", option)], "types as placeholders"


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split() if "/instances/" not in name]


AEM = typer.main.get_command(app)


def command_of(words: list[str]) -> tuple[str, set[str]]:
    """The command that words after `aem` begin with, and the options that it takes."""
    node, name = AEM, list[str]()
    for word in words:
        below = getattr(node, "commands", {}).get(word)
        if below is None:
            break
        node, name = below, [*name, word]
    options = {option for one in (*node.params, *AEM.params) for option in (*one.opts, *one.secondary_opts)}
    return " ".join(name), options | {"--help"}


def leaves(name: str, node: object) -> Iterator[tuple[str, object]]:
    yield name, node
    for below, command in getattr(node, "commands", {}).items():
        yield from leaves(f"{name} {below}", command)


def test_examples_of_help_fit_a_terminal_of_80_columns_and_prose_is_left_to_it():
    for name, command in leaves("aem", AEM):
        lines = [*(command.epilog or "").splitlines(), *(command.help or "").splitlines()]
        assert not [line for line in lines if line.startswith(" ") and len(line) > 78], name
        pairs = pairwise(lines)
        assert not [after for before, after in pairs if before[-1:].strip() and after[:1].islower()], name


def test_help_names_no_python_types_and_cuts_no_choice():
    for name, _ in leaves("", AEM):
        shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "80"}).output
        assert "--help" in shown
        assert not re.search(r"<(bool|str|int|float|path|list\[)", shown, re.IGNORECASE), name
        assert not re.search(r"<[\w|-]+ *│", shown), f"a choice in two lines: {name}"


def test_every_option_that_a_page_gives_to_a_command_exists():
    seen, unknown = 0, []
    for page in tracked("*.md", "*.yml", "*.sh"):
        text = page.read_text().replace("\\\n", " ")
        for found in re.finditer(r"\baem ([a-z][^`|;#&()\n\"]*)", text):
            words = found[1].split()
            name, options = command_of(words)
            given = [word.split("=")[0].rstrip(".,:") for word in words if name]
            given = [word for word in given if re.fullmatch(r"--[a-z][a-z-]*|-[a-z]", word)]
            seen += len(given)
            unknown += [f"{page.relative_to(ROOT)}: aem {name} {word}" for word in given if word not in options]
    assert seen > 200
    assert not unknown


PRODUCT = tracked(
    *(f"{folder}/*.py" for folder in ("agents", "aem_checkpoints", "api", "commands", "harness", "training"))
)
# Files of other projects, and one that the reader is to write.
ELSEWHERE = {"harness/utils.py", "harness/interop/NAME.py"}


def test_every_file_that_a_page_or_a_docstring_names_is_there():
    folders = "agents|aem_checkpoints|api|benchmarks|commands|docs|examples|findings|harness|tests|training"
    named = re.compile(rf"(?<![\w/.-])(?:{folders})/[\w./*-]+\.(?:csv|ipynb|md|pl|png|py|sh|svg|ya?ml)\b")
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in (*tracked("*.md", "*.toml", "Makefile"), *PRODUCT)
        for name in named.findall(page.read_text())
        if name not in ELSEWHERE and not any(ROOT.glob(name))
    ]
    assert not missing


def test_every_finding_says_what_was_guessed_and_what_happens():
    words = [
        sys.executable,
        "-c",
        "import json, pathlib; from docs._site.findings import header; "
        "print(json.dumps({p.name: header(p.read_text()) for p in pathlib.Path('findings').glob('*.sh')}))",
    ]
    found = json.loads(subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
    for name, fields in found.items():
        assert all(fields.get(field) for field in ("Guess", "Version", "Behaviour", "Output", "Why here")), name
        assert "set -euo pipefail" in (ROOT / "findings" / name).read_text()


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra `docs`")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "aem compare" in (tmp_path / "site" / "reference" / "commands" / "index.html").read_text()
