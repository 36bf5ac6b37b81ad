"""CSV files of outcomes: our own, those saved by a spreadsheet, and those with other column names."""

import csv
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import pandas as pd

from aem_harness.harness.errors import DataError, listed
from aem_harness.harness.io import read_text
from aem_harness.harness.schema import COLUMNS, KEY

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
ALIASES = {"instance": "instance_id", "task": "instance_id", "run": "seed", "epoch": "seed"}


def read_table(path: Path) -> pd.DataFrame:
    """The file as text, cell by cell. The separator is the one of `,`, `;` and tab that splits the header most."""
    text = read_text(path)
    try:
        return pd.read_csv(StringIO(text), dtype=str, keep_default_na=False, sep=_separator(text))
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"cannot read {path}: {' '.join(str(error).split())}") from None


def is_outcomes_csv(path: Path) -> bool:
    """Does a CSV file have the columns arm and instance_id? Raises DataError if it cannot be read."""
    if not path.name.endswith(SUFFIXES):
        return False
    text = read_text(path)
    return {"arm", "instance_id"} <= set(next(csv.reader(StringIO(text), delimiter=_separator(text)), []))


def _separator(text: str) -> str:
    head = text.partition("\n")[0]
    return max(",;\t", key=head.count)


def rename_columns(raw: pd.DataFrame, columns: Mapping[str, str], source: str, arm: str = "") -> pd.DataFrame:
    """`raw` with our columns, taken from others by name, or joined from several by `+`.

    `arm` names the arm if no column does. Rollouts without a seed are numbered in the order of the file. Raises
    DataError for an unknown column, and if the columns do not distinguish the rollouts.
    """
    table = raw.copy()
    for ours, theirs in columns.items():
        parts = [theirs] if theirs in raw.columns else theirs.split("+")
        if missing := [name for name in parts if name not in raw.columns]:
            raise DataError(f"{source} has no column {listed(missing)}; it has {listed(raw.columns, 20)}")
        joined = raw[parts[0]].str.strip()
        for name in parts[1:]:
            joined = joined + " " + raw[name].str.strip()
        table[ours] = joined
    if arm and "arm" not in table:
        table["arm"] = arm
    if not {"arm", "instance_id"} <= set(table.columns):
        return table
    if "seed" not in table:
        table["seed"] = table.groupby(["arm", "instance_id"]).cumcount().astype(str)
    if twice := int(table.duplicated(KEY).sum()):
        used = {name for theirs in columns.values() for name in (theirs, *theirs.split("+"))}
        others = [name for name in raw.columns if name not in used and name not in COLUMNS]
        example = "+".join([columns.get("arm", "arm"), *others[:1]])
        raise DataError(
            f"{source}: {twice} rows repeat an arm, instance and seed; join columns that distinguish them, for "
            f"example arm={example} (not used yet: {listed(others) or 'none'})"
        )
    return table


def parse_columns(text: str) -> dict[str, str]:
    """`instance=task,arm=study+model` as a mapping from our columns to theirs. Raises DataError."""
    found = {}
    for part in text.split(","):
        ours, separator, theirs = part.partition("=")
        name = ours.strip() if ours.strip() in COLUMNS else ALIASES.get(ours.strip(), "")
        if not separator or not theirs.strip() or not name:
            raise DataError(
                f"--columns {part.strip()!r}: write OURS=THEIRS, with one of ours ({listed(COLUMNS, 8)}), "
                "for example --columns instance=task,arm=study+model,seed=run"
            )
        found[name] = theirs.strip()
    return found
