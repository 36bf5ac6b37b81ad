"""Pages of the site that are made from code while it is built, so that they cannot go stale.

The reference of the commands comes from the command line itself, the page of findings from the headers of
findings/*.sh, changelog and contributing guide from the files at the top of the repository.
"""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from docs._site.commands import commands_page  # noqa: E402
from docs._site.findings import findings_page  # noqa: E402


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = {
        "reference/commands.md": commands_page(),
        "findings.md": findings_page(ROOT / "findings"),
        "changelog.md": _from_top("CHANGELOG.md"),
        "contributing.md": _from_top("CONTRIBUTING.md"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def _from_top(name: str) -> str:
    """A file at the top of the repository, with its links to docs/ made links between pages."""
    text = (ROOT / name).read_text()
    return re.sub(r"\]\(docs/", "](", text).replace("](CHANGELOG.md)", "](changelog.md)")
