#!/bin/bash
set -uxo pipefail
source /opt/miniconda3/bin/activate
conda activate testbed
cd /testbed
git config --global --add safe.directory /testbed
cd /testbed
git status
git show
git -c core.fileMode=false diff $base_commit
source /opt/miniconda3/bin/activate
conda activate testbed
git checkout $base_commit $test_files
git apply -v - <<'EOF_114329324912'
$test_patch
EOF_114329324912
: '>>>>> Start Test Output'
pytest -rA $test_files
: '>>>>> End Test Output'
git checkout $base_commit $test_files
