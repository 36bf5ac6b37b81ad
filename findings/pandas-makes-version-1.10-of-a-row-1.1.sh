#!/usr/bin/env bash
# Guess: text in a JSON Lines file, in quotes, is text after pandas.read_json, and the same text again after to_json.
# Version: pandas 3.1.1
# Behaviour: a column in which every text looks like a number becomes numbers. The column `version` of SWE-bench is one: "1.10" and
#   "1.1" of sympy become the same 1.1, and are written back as it. `dtype=False` keeps the text.
# Output: written "1.1", "1.10", "1.11"; read back and written 1.1, 1.1, 1.11; with dtype=False "1.1", "1.10", "1.11"
# Why here: all 500 versions of SWE-bench Verified look like numbers. In a set that was filtered with pandas, sympy 1.10 is 1.1 and pylint
#   2.10 is 2.1 for whatever goes by the version: another environment, other test commands, and a gold patch that fails. In a set with one
#   version that is no number the column stays text. aem refuses a version that is a number, and says why.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pandas==3.1.1
cd "$work"
cat > rows.jsonl << 'EOF'
{"instance_id": "sympy__sympy-13031", "version": "1.1"}
{"instance_id": "sympy__sympy-22080", "version": "1.10"}
{"instance_id": "sympy__sympy-22914", "version": "1.11"}
EOF
"$work/venv/bin/python" - << 'EOF'
import json

import pandas as pd


def written(**options):
    pd.read_json("rows.jsonl", lines=True, **options).to_json("again.jsonl", orient="records", lines=True)
    return [json.loads(line)["version"] for line in open("again.jsonl")]


def shown(versions):
    return ", ".join(map(json.dumps, versions))


before, after, text = [json.loads(line)["version"] for line in open("rows.jsonl")], written(), written(dtype=False)
print(f"written {shown(before)}; read back and written {shown(after)}; with dtype=False {shown(text)}")
assert after == [1.1, 1.1, 1.11] and text == before
EOF
