"""Files of arrays in a run's folder of caches: numpy's own format (`.npz`), checked as a whole when they are opened.

No library beyond numpy is needed to read them: one that reads Parquet takes more memory than the columns of ten
thousand rollouts.
"""

import json
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aem_harness.harness.errors import AemError
from aem_harness.harness.io import remove_left, replacing

logger = logging.getLogger(__name__)

FOLDER = "facts"
NAMES = "names"  # the array that names them all
DAMAGE = (OSError, EOFError, ValueError, KeyError, RuntimeError, zipfile.BadZipFile)  # what a damaged file can raise


def open_arrays(path: Path, version: int) -> np.lib.npyio.NpzFile:
    """The arrays of a file, each read when it is asked for. The file stays open: it may be removed meanwhile.

    Raises one of `DAMAGE` where any byte of its content has changed, or its version is another.
    """
    file = np.load(path, allow_pickle=False)
    if not isinstance(file, np.lib.npyio.NpzFile) or file.zip is None:
        raise ValueError("it holds no arrays by name")
    if any(one.compress_type != zipfile.ZIP_STORED for one in file.zip.infolist()):
        raise ValueError("it is compressed, which none that is written here is")
    if wrong := file.zip.testzip():
        raise ValueError(f"{wrong} has changed")
    if int(file["version"]) != version:
        raise ValueError("it is of another version")
    if set(json.loads(file[NAMES].tobytes())) != set(file.files):  # a damaged directory can hide some of them
        raise ValueError("some of its arrays are missing")
    return file


def read_arrays(path: Path, version: int) -> dict[str, NDArray[Any]]:
    """The arrays of a file, read at once. Raises as `open_arrays` does."""
    with open_arrays(path, version) as file:
        return dict(file)


def write_arrays(path: Path, version: int, arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Write a file of arrays, whole or not at all; False where that cannot be, which costs time and nothing else."""
    try:
        path.parent.mkdir(exist_ok=True)
        remove_left(path.parent)
        with replacing(path) as out:
            whole = {"version": np.array(version), **arrays}
            names = np.frombuffer(json.dumps([NAMES, *whole]).encode(), np.uint8)
            np.savez(out, allow_pickle=False, **{NAMES: names}, **whole)
    except (OSError, AemError) as error:
        logger.info("%s is not kept (%s)", path, error)
        return False
    return True
