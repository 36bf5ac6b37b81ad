#!/usr/bin/env bash
# The main job on the bundled tasks: two policies through containers, the official grader, one comparison.
set -euo pipefail
cd "$(dirname "$0")/.."
results=${1:-results}
aem=.venv/bin/aem
seeds=2

$aem doctor --set sample
$aem images build --set sample
for policy in hasty careful; do
  $aem run --agent "replay:$policy" --arm "$policy" --set sample --seeds $seeds --out "$results/demo-$policy"
done
$aem compare "$results/demo-hasty" "$results/demo-careful" --out "$results/demo-comparison"
$aem table "$results/demo-hasty" "$results/demo-careful" --format markdown --out "$results/demo-table.md"
$aem report "$results/demo-hasty" "$results/demo-careful" --out "$results/demo-report.html"
echo
echo "written: $results/demo-comparison/ (JSON, CSV, text), $results/demo-table.md, $results/demo-report.html"
