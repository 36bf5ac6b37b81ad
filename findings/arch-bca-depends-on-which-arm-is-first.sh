#!/usr/bin/env bash
# Guess: a bootstrap interval of the paired difference B - A is that of A - B with the signs turned, at least for a mean.
# Version: arch 8.0.0 (scipy 1.17.1, numpy 2.4.6)
# Behaviour: the bias correction of "bc" and "bca" counts the replicates strictly below the estimate. Differences of solved and
#   unsolved tasks are so coarse that many replicates equal it, so half of the ties is taken for bias, always in the same
#   direction. Both intervals move down, and the sign of the subtraction decides which side of 0 they end on. scipy's BCa
#   counts ties half, and mirrors.
# Output: 50 tasks, 5 better and 1 worse: B - A [-0.02, 0.16], A - B turned [0.02, 0.20]; percentile [0.00, 0.18] and [0.00, 0.18]; scipy mirrors: True
# Why here: BCa is what textbooks advise, and arch the usual library that has it for any statistic. The same two checkpoints
#   differ significantly or not, by which of them is subtracted. aem's intervals and p-values swap with the arms (a test
#   holds that), and it uses no BCa.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet arch==8.0.0 scipy==1.17.1 numpy==2.4.6
"$work/venv/bin/python" - << 'EOF'
import numpy as np
from arch.bootstrap import IIDBootstrap
from scipy.stats import bootstrap

difference = np.array([1.0] * 5 + [-1.0] + [0.0] * 44)  # B - A of each task


def interval(values, method):
    return IIDBootstrap(values, seed=np.random.default_rng(0)).conf_int(np.mean, 3000, method=method).ravel()


def turned(interval):
    return -np.asarray(interval)[::-1]


def shown(interval):
    return f"[{interval[0] + 0:.2f}, {interval[1] + 0:.2f}]"


found = {method: (interval(difference, method), turned(interval(-difference, method))) for method in ("bca", "percentile")}
theirs = [
    bootstrap((values,), np.mean, n_resamples=3000, method="BCa", rng=0).confidence_interval for values in (difference, -difference)
]
mirrors = np.allclose(theirs[0], turned(theirs[1]), atol=1e-9)
forth, back = found["bca"]
print(
    f"50 tasks, 5 better and 1 worse: B - A {shown(forth)}, A - B turned {shown(back)}; "
    f"percentile {' and '.join(map(shown, found['percentile']))}; scipy mirrors: {mirrors}"
)
assert forth[0] < 0 < back[0], "the sign of the subtraction no longer decides"
assert np.allclose(*found["percentile"], atol=0.021) and mirrors
EOF
