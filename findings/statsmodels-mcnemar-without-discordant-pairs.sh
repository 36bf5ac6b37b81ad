#!/usr/bin/env bash
# Guess: two arms that agree on every task have p = 1 (or no p) in McNemar's test, whichever variant is chosen.
# Version: statsmodels 0.15.0 (scipy 1.17.1)
# Behaviour: the asymptotic variant divides by the number of discordant pairs. With none, the variant with continuity
#   correction returns statistic inf and p = 0, that is, the strongest possible evidence for a difference; the one without
#   returns nan. Only the exact variant gives 1. A warning of numpy about a division is all that is said.
# Output: exact p = 1.0, corrected p = 0.0, uncorrected p = nan
# Why here: the same checkpoint run twice at temperature 0, or two checkpoints on a few easy tasks, have no discordant pairs, and
#   a script that asks for p < 0.05 then reports a significant difference. aem compare uses the exact test.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet statsmodels==0.15.0 scipy==1.17.1
"$work/venv/bin/python" -W ignore - << 'EOF'
import math
from statsmodels.stats.contingency_tables import mcnemar

both_right, both_wrong = 5, 5
table = [[both_right, 0], [0, both_wrong]]
exact = mcnemar(table, exact=True).pvalue
corrected = mcnemar(table, exact=False, correction=True).pvalue
plain = mcnemar(table, exact=False, correction=False).pvalue
print(f"exact p = {float(exact)}, corrected p = {float(corrected)}, uncorrected p = {float(plain)}")
assert exact == 1 and corrected == 0 and math.isnan(plain)
EOF
