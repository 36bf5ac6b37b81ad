#!/usr/bin/env bash
# Guess: a p-value that is not a number is refused, or left out, or at least never counts as significant.
# Version: statsmodels 0.15.0 (scipy 1.17.1)
# Behaviour: multipletests takes NaN without a word. Under Holm the hypothesis whose p is NaN is *rejected* when the others are,
#   while its corrected p is NaN. Under Benjamini-Hochberg one NaN makes every corrected p NaN, while the others still count
#   as rejected. So the two parts of the answer contradict each other, and one of them is wrong.
# Output: holm rejects [True, True, True, True] with corrected [0.004, 0.012, 0.04, nan]; fdr_bh rejects [True, True, True, False] with corrected [nan, nan, nan, nan]
# Why here: a table of many arms nearly always has one whose test has no p (no discordant pair, one task, no variance). It gets a
#   star. In aem, Holm counts a test without a p as p = 1.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet statsmodels==0.15.0 scipy==1.17.1
"$work/venv/bin/python" -W ignore - << 'EOF'
import numpy as np
from statsmodels.stats.multitest import multipletests

p = [0.001, 0.004, 0.02, float("nan")]
answers = {method: multipletests(p, alpha=0.05, method=method)[:2] for method in ("holm", "fdr_bh")}
print("; ".join(
    f"{method} rejects {rejected.tolist()} with corrected {corrected.round(3).tolist()}"
    for method, (rejected, corrected) in answers.items()
))
assert answers["holm"][0].tolist() == [True, True, True, True]
assert np.isnan(answers["holm"][1][3])
assert answers["fdr_bh"][0].tolist() == [True, True, True, False]
assert np.isnan(answers["fdr_bh"][1]).all()
EOF
