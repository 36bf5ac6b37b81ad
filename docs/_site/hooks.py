"""Pages of the site that are made from code while it is built, so that they cannot go stale.

The reference of the commands comes from the command line itself, the page of findings from the headers of findings/*.sh,
changelog and contributing guide from the files at the top of the repository. Links from docs/*.md to files outside docs/
point to the repository.
"""

import re
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

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


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links to files of the repository that are no pages become plain code: the site can be read without them."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?!docs/)[^)#]*\)|\[(`[^\]]+`)\]\(ci/[^)]+\)", _plain, markdown)


def _plain(link: re.Match[str]) -> str:
    return (
        link[0] if re.search(r"\]\((\.\./)*[\w/-]+\.md\)$", link[0]) and "README" not in link[0] else link[1] or link[2]
    )


def _from_top(name: str) -> str:
    """A file at the top of the repository, with its links to docs/ made links between pages."""
    return re.sub(r"\]\(docs/", "](", (ROOT / name).read_text())
