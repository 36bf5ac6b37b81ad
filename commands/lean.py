"""pandas without pyarrow: for commands that read outcomes, and nothing that is in Parquet."""

import sys


def import_pandas() -> None:
    """Import pandas without pyarrow, which it otherwise takes along where it is installed, to keep text in.

    Python's own strings do as well, and save 40 MB and 0.3 s. Only for a process of our own; later imports of pyarrow
    itself work as ever. Nothing happens where either of them has been imported before.
    """
    if "pandas" in sys.modules or "pyarrow" in sys.modules:
        return
    sys.modules["pyarrow"] = None  # type: ignore[assignment]  # an import of it fails, as if it were not installed
    try:
        import pandas  # noqa: F401
    finally:
        del sys.modules["pyarrow"]
