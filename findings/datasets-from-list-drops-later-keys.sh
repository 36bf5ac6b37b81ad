#!/usr/bin/env bash
# Guess: Dataset.from_list gives the union of the keys, as pandas and `load_dataset("json")` do, or complains that rows differ.
# Version: datasets 5.2.0
# Behaviour: the columns are the keys of the first row. What only later rows have is dropped, without a warning; inside a nested
#   dictionary, on the other hand, the union is taken.
# Output: columns ['id', 'resolved'], nested keys ['x', 'y']
# Why here: rows of rollouts carry optional fields (fault, cost, hint) only where they apply. If the first rollout was fine, the
#   column that says which ones were lost to the infrastructure disappears, and they look like wrong answers. aem reads and
#   writes its rows without this constructor.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet datasets==5.2.0
"$work/venv/bin/python" - << 'EOF'
from datasets import Dataset

rows = [
    {"id": "a", "resolved": True, "usage": {"x": 1}},
    {"id": "b", "resolved": False, "usage": {"x": 2, "y": 3}, "fault": "the engine was gone"},
]
flat = Dataset.from_list([{key: row[key] for key in row if key != "usage"} for row in rows])
nested = Dataset.from_list([{"usage": row["usage"]} for row in rows])
print(f"columns {flat.column_names}, nested keys {sorted(nested[0]['usage'])}")
assert flat.column_names == ["id", "resolved"]
assert sorted(nested[0]["usage"]) == ["x", "y"]
EOF
