"""The page of findings, from the headers of findings/*.sh."""

import re
from pathlib import Path

FIELDS = ("Guess", "Version", "Behaviour", "Output", "Why here")
INTRODUCTION = """# Surprises in other tools

Behaviour of tools and formats of this field that a good engineer would guess wrong. Each is shown by a script in
`findings/` that installs the named versions, runs them on valid input without aem-harness, and fails when the behaviour
changes: `make findings` runs them all, `bash findings/NAME.sh` one.
"""


def header(script: str) -> dict[str, str]:
    """The fields of a script's header; a field goes on over the comment lines that follow it."""
    found: dict[str, str] = {}
    name = ""
    for line in script.splitlines():
        if match := re.match(rf"# ({'|'.join(FIELDS)}): ?(.*)", line):
            name, found[match[1]] = match[1], match[2].strip()
        elif name and line.startswith("# "):
            found[name] = f"{found[name]} {line[2:].strip()}".strip()
        else:
            name = ""
    return found


def findings_page(folder: Path) -> str:
    """The whole page, in Markdown."""
    parts = [INTRODUCTION]
    for script in sorted(folder.glob("*.sh")):
        fields = header(script.read_text())
        parts.append(f"## {script.stem.replace('-', ' ')}\n")
        labels = ("Version", "Guess", "Behaviour", "Why here")
        parts += [f"**{label}.** {_escaped(fields.get(label, ''))}\n" for label in labels]
        parts.append(f"```text\n{fields.get('Output', '')}\n```\n\n`bash findings/{script.name}`\n")
    return "\n".join(parts)


def _escaped(text: str) -> str:
    return re.sub(r"([<*_\[])", r"\\\1", text) if "`" not in text else text.replace("<", "&lt;")
