"""Other people's results as rows of our outcomes table: one small file per foreign format.

Each format module has `matches(path)`, true when `path` looks like that format, and `read(source)`, which returns rows
with the columns of `aem_harness.harness.schema` that the format knows. A row states what the tool says: how the
rollout ended (`end`, in the tool's own word) and the verdict; whose fault an end is, is decided for all formats at
once, in `aem_harness.harness.compare.ledger`. A record that cannot be read costs one verdict, and is named in
`source.problems`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aem_harness.harness.ends import Ends, read_ends
from aem_harness.harness.errors import DataError, listed
from aem_harness.harness.interop.problems import Problems
from aem_harness.harness.io import read_bytes
from aem_harness.harness.schema import COLUMNS, KEY, REQUIRED, writable

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]
PLACES = ("trajectory", "source")  # paths, with whatever bytes they have

# In the order in which `auto` tries them, the most specific first: module and what it reads.
FORMATS: dict[str, tuple[str, str]] = {
    "leaderboard": ("leaderboard", "a matrix of leaderboard outcomes, or one submission of the experiments repository"),
    "inspect": ("inspect_log", "an Inspect log: .eval, or .json with samples"),
    "harbor": ("harbor", "a Harbor job folder: one result.json per trial"),
    "nemo": ("nemo", "a NeMo Evaluator results.jsonl, or the folder with it"),
    "openhands": ("openhands", "an OpenHands output.jsonl, or the folder with it, with an official report"),
    "mini-swe-agent": ("mini", "a mini-swe-agent output folder, or its preds.json, with an official report"),
    "swe-agent": ("sweagent", "a SWE-agent output folder of .traj files, with an official report"),
    "swebench": ("official", "a swebench run report, a folder of per-instance reports, or a .jsonl of reports"),
}


@dataclass(frozen=True)
class ImportSource:
    """What to read. `arm` and `seed` name the rollouts where the format does not; `reports` is where verdicts lie."""

    path: Path
    arm: str = ""
    seed: int = 0
    reports: Path | None = None
    ends: Ends = field(default_factory=read_ends)
    problems: Problems = field(default_factory=Problems)


def read(source: ImportSource, format: str = "auto") -> "pd.DataFrame":
    """The rollouts in `source`. Raises DataError when no format fits, or a file breaks the promises of its format."""
    import pandas as pd

    if format != "auto" and format not in FORMATS:
        raise DataError(f"unknown format {format!r}; known: auto, csv, run, {', '.join(FORMATS)}")
    if not source.path.exists():
        raise DataError(f"no such file or folder: {source.path}")
    for name, (module_name, _) in FORMATS.items():
        if format not in ("auto", name):
            continue
        module = import_module(f"aem_harness.harness.interop.{module_name}")
        if format == name or module.matches(source.path):
            rows = module.read(source)
            if len(rows) == 0:
                raise DataError(f"{source.path} holds no rollouts in the format {name}")
            return rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([_sound(row) for row in rows])
    if source.path.name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        raise DataError(
            f"{source.path} has no columns arm and instance_id; an outcomes CSV needs {listed(REQUIRED)}: name "
            "them with --columns, for example --columns arm=model,seed=run"
        )
    if source.path.is_file():
        read_bytes(source.path)  # a torn or unreadable file says so itself
    raise DataError(f"cannot recognise the format of {source.path}; give --format ({', '.join(FORMATS)})")


def _sound(row: Row) -> dict[str, Any]:
    """The row without measurements that are none (text, negative, beyond 63 bits): no verdict depends on them."""
    sound = {name: None if _odd(name, value) else value for name, value in row.items()}
    texts = {name: writable(value) for name, value in sound.items() if isinstance(value, str) and name not in PLACES}
    return {"resolved": None, **sound, **texts}


def _odd(name: str, value: Any) -> bool:
    kind = COLUMNS[name].kind if name in COLUMNS and name not in KEY else "text"
    if kind not in ("count", "number") or value is None:
        return False
    sound = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**63
    return not sound or (kind == "count" and value != int(value))
