"""The outcomes table: a line for each rollout that was planned, those without a verdict included."""

from pathlib import Path

from aem_harness.harness.errors import ConfigError
from aem_harness.harness.export import ExportedRun, Written


def write(run: ExportedRun, out: Path) -> Written:
    from aem_harness.harness.compare.outcomes import load_one, write_csv

    table = load_one(str(run.folder)).table
    if run.seed is not None:
        table = table[table["seed"] == run.seed]
    if out.name.endswith((".csv", ".csv.gz")):
        write_csv(table, out)
    elif out.suffix == ".parquet":
        table.dropna(axis="columns", how="all").to_parquet(out, index=False)
    else:
        raise ConfigError(f"{out} must end in .csv, .csv.gz or .parquet")
    return Written(len(table))
