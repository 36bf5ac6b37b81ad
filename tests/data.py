"""The public data that some tests read: what can be fetched is fetched, all of it is checked. `make data` runs this.

The folder is the one that AEM_TEST_DATA names, by default `../shared` beside the repository. The dataset rows come from
the Hugging Face hub. The other files are third-party material under licences of their own, so they are neither kept
here nor fetched; CONTRIBUTING.md says what they are. Tests that miss a file skip and say so.
"""

import gzip
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aem_harness.harness.errors import AemError
from aem_harness.harness.instances.load import HUB
from aem_harness.harness.instances.rows import digest
from tests.conftest import DATA

CHECKSUMS = Path(__file__).with_name("data.sha256")
ROWS = "data/swe-bench-verified.jsonl.gz"
# Over the 500 published rows, whatever the file format: `harness.instances.rows.digest`.
VERIFIED = "4af821934fe3464364f5ce439b0b8ce1bc4b96d019c7b2f0649a3b0121ebfeb1"


class Refused(Exception):
    """What was fetched is not what the tests were written for; the text says how it differs."""


def published() -> list[dict[str, Any]]:
    """The rows of SWE-bench Verified from the hub."""
    from datasets import load_dataset

    return [dict(row) for row in load_dataset(HUB["verified"], split="test")]


def write_rows(rows: Iterable[Mapping[str, Any]], file: Path) -> None:
    """Write the rows by instance id if their digest is the expected one; else raise Refused and write nothing."""
    rows = sorted(rows, key=lambda row: row["instance_id"])
    if (found := digest(rows)) != VERIFIED:
        raise Refused(f"the {len(rows)} rows have the digest {found}, expected {VERIFIED}: another revision?")
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    partial = file.with_suffix(".partial")
    partial.write_bytes(gzip.compress(text.encode(), mtime=0))
    partial.rename(file)


def checksum(path: Path) -> str:
    """SHA-256 of a file; of a folder, that over the checksums and names of its files."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = "".join(f"{checksum(file)}  {file.relative_to(path)}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def checked(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the list that are missing in `folder`, and those that are there with other content."""
    entries = [line.split("  ") for line in CHECKSUMS.read_text().splitlines()]
    present = {name: checksum(folder / name) for _, name in entries if (folder / name).exists()}
    missing = [name for _, name in entries if name not in present]
    return missing, [name for expected, name in entries if present.get(name, expected) != expected]


def main(folder: Path = DATA) -> int:
    if not (folder / ROWS).is_file():
        try:
            write_rows(published(), folder / ROWS)
        except (Refused, AemError, OSError) as error:
            print(f"cannot fetch the rows of {HUB['verified']}: {error}", file=sys.stderr)
    missing, other = checked(folder)
    # The rows' file has other bytes where it was fetched; its content was checked before it was written.
    other = [name for name in other if name != ROWS]
    for what, names in (("missing", missing), ("changed", other)):
        for name in names:
            print(f"{what}: {folder / name}")
    print(f"{len(missing)} missing, {len(other)} changed; CONTRIBUTING.md says where they come from")
    return 1 if other else 0


if __name__ == "__main__":
    raise SystemExit(main())
