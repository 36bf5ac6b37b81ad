"""Rows of NeMo Gym's SWE agents (github.com/NVIDIA-NeMo/Gym), as Nemotron's sets for RL have them.

Such a row is a request: `responses_create_params.metadata.instance_dict` holds, as JSON text, a row of SWE-Gym, R2E-Gym
or swebench, and the metadata beside it repeat some of its columns. nvidia/Nemotron-Cascade-RL-SWE is another thing: its
rows have a prompt and a golden patch and are graded without being run.
"""

import json
from collections.abc import Mapping

from aem_harness.harness.errors import DataError
from aem_harness.harness.instances.training_sets import Adapted, Row


def unwrapped(row: Row) -> Row:
    """The row inside a request; any other row as it is. Raises DataError for a request without a row."""
    request = row.get("responses_create_params")
    if request is None:
        return row
    metadata = request.get("metadata") if isinstance(request, Mapping) else None
    inner = metadata.get("instance_dict") if isinstance(metadata, Mapping) else None
    if isinstance(inner, str):
        try:
            inner = json.loads(inner)
        except ValueError as error:
            raise DataError(f"instance_dict must be JSON text of a row: {error}") from None
    if not isinstance(metadata, Mapping) or not isinstance(inner, Mapping):
        raise DataError("responses_create_params.metadata.instance_dict must hold a row")
    beside = {"instance_id", "problem_statement", "repo", "base_commit", "patch", "golden_patch"}
    outer = {"patch" if key == "golden_patch" else key: metadata[key] for key in beside if metadata.get(key)}
    return {**outer, **{key: value for key, value in inner.items() if value is not None and key not in _OWN}}


_OWN = ("dataset_name", "split", "container_formatter", "golden_patch")  # of the request, not of the row


def has_no_tests(row: Row) -> bool:
    """Whether it is a row of Nemotron-Cascade-RL-SWE: nothing in it can be run."""
    return {"golden_patch", "prompt"} <= row.keys() and "FAIL_TO_PASS" not in row


def refuse(row: Row) -> Adapted:
    raise DataError(
        "a row of Nemotron-Cascade-RL-SWE has no tests (it is graded without being run): take the rows of these "
        "instances from the sets that its column `source` names"
    )
