#!/usr/bin/env bash
# Guess: the signed-rank test of two checkpoints is the same on the tasks' counts of solved seeds and on their means: it goes by ranks.
# Version: scipy 1.17.1 (numpy 2.4.6)
# Behaviour: differences of means over three seeds that are equal as numbers are not equal as floats (1 - 2/3 and 2/3 - 1/3 differ in
#   the last digit), so wilcoxon ranks by rounding errors what is tied (here a statistic of 37.5 becomes 50.5). Nothing is said. With
#   4 seeds, whose means are exact, both ways agree; so they do when differences are rounded first.
# Output: 40 tasks, 3 seeds: p = 0.048 from counts, 0.211 from means, 0.048 from rounded differences; 4 seeds: 0.048, 0.048; of 1000 pairs
#   of checkpoints 10 points apart 78 change sides of 0.05
# Why here: the test is the textbook's for scores in pairs that are not normal, a table of an evaluation holds means, and 3, 5 or 10 seeds
#   are usual. Whether an improvement is significant is then decided by rounding, in 8 % of such comparisons. aem compare uses
#   no ranks, and its permutation test counts equal sums as equal.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scipy==1.17.1 numpy==2.4.6
"$work/venv/bin/python" -W ignore - << 'EOF'
import numpy as np
from scipy.stats import wilcoxon

# Of 40 tasks, how many of three seeds solved it
ours = np.array([int(digit) for digit in "3310003333133301310020003333030303113032"])
theirs = np.array([int(digit) for digit in "3212003233233311231230113333121303013033"])


def p(after, before):
    return round(float(wilcoxon(after, before).pvalue), 3)


three = p(theirs, ours), p(theirs / 3, ours / 3), round(float(wilcoxon((theirs / 3 - ours / 3).round(9)).pvalue), 3)
four = p(theirs, ours), p(theirs / 4, ours / 4)

rng = np.random.default_rng(0)
crossed = 0
for _ in range(1000):
    rates = rng.beta(0.5, 0.5, 40)
    before, after = rng.binomial(3, rates), rng.binomial(3, np.minimum(rates + 0.1, 1))
    crossed += (wilcoxon(after, before).pvalue < 0.05) != (wilcoxon(after / 3, before / 3).pvalue < 0.05)
print(
    f"40 tasks, 3 seeds: p = {three[0]} from counts, {three[1]} from means, {three[2]} from rounded differences; 4 seeds: "
    f"{four[0]}, {four[1]}; of 1000 pairs of checkpoints 10 points apart {crossed} change sides of 0.05"
)
assert three[0] == three[2] == four[0] == four[1] < 0.05 and three[1] > 0.2
assert crossed == 78
EOF
