#!/usr/bin/env bash
# What the harness is for, in two acts, on bundled tasks, in containers, graded by the official grader:
#   1. two scripted policies, hasty and careful, on 19 small but genuine bug fixes: does it tell them apart?
#   2. two checkpoints that were really trained, GRPO and GRPO with AEM, on 40 bugs they have never seen.
# Everything is written into the results folder; stopped and called again, it continues. The whole of what is said goes to
# demo.log.
set -euo pipefail
cd "$(dirname "$0")/.."
results=${1:-results}
aem=.venv/bin/aem
seeds=2
log=$results/demo.log

mkdir -p "$results"
: > "$log"

title() { printf '\n=== %s\n' "$1"; }
quietly() { # without the line that every rollout gets; those are in the log
  { "$@" 2>&1 >&3 | tee -a "$log" | sed -u '/^\[[0-9]/d' >&2; } 3>&1
}

title "This machine"
$aem doctor --set sample
title "Images of both sets"
quietly $aem images build --set sample >> "$log"
quietly $aem images build --set tiny >> "$log"

title "1. Two scripted policies on 19 bug fixes in six small libraries"
for policy in hasty careful; do
  quietly $aem run --agent "replay:$policy" --arm "$policy" --set sample --seeds $seeds --out "$results/demo-$policy"
done
$aem compare "$results/demo-hasty" "$results/demo-careful" --out "$results/demo-comparison"
$aem table "$results/demo-hasty" "$results/demo-careful" --format markdown --out "$results/demo-table.md"
$aem report "$results/demo-hasty" "$results/demo-careful" --out "$results/demo-report.html"

title "2. Two trained checkpoints on 40 held-out bugs: GRPO, and GRPO with AEM"
for policy in tiny-grpo tiny-aem; do
  quietly $aem run --checkpoint $policy --set tiny --seeds $seeds -w 8 --grade-workers 4 --out "$results/demo-$policy"
done
$aem compare "$results/demo-tiny-grpo" "$results/demo-tiny-aem" --brief --out "$results/demo-aem-comparison"
echo "How uncertain a policy is, by turn: mean token entropy of its responses, in nats"
.venv/bin/python examples/entropy_by_turn.py "$results/demo-tiny-grpo" "$results/demo-tiny-aem" --out "$results/demo-entropy.svg"
$aem report "$results/demo-tiny-grpo" "$results/demo-tiny-aem" --out "$results/demo-aem-report.html"

title "Written"
cat << EOF
In $results:
demo-report.html      hasty against careful: every task, every trajectory
demo-aem-report.html  GRPO against GRPO with AEM, with the entropy by turn
demo-entropy.svg      that picture alone
demo-comparison/      hasty against careful as JSON, CSV and text
demo-aem-comparison/  GRPO against GRPO with AEM, likewise
demo-table.md         hasty against careful as a table
EOF
