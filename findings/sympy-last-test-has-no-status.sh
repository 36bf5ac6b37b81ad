#!/usr/bin/env bash
# Guess: swebench reads the status of every test that sympy's runner reports as passed.
# Version: swebench 5.0.2, sympy 1.13.3
# Behaviour: the last test of every file is not in the parsed statuses: the runner writes "[OK]" on the same line, and the
#   parser wants the line to end with " ok".
# Output: test_first ok; test_last ok (spaces) [OK]; read: {'test_first': 'PASSED'}
# Why here: a test at the end of a file, as upstream patches add them, cannot be listed, and a tool that adds tests of its own
#   finds one of them missing in every honest run. Our canaries add one more test behind those that are read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3}" -m venv venv
venv/bin/pip install -q sympy==1.13.3 swebench==5.0.2
mkdir tests
printf 'def test_first():\n    assert 1 + 1 == 2\n\n\ndef test_last():\n    assert 2 + 2 == 4\n' > tests/test_two.py
cat > run.py <<'PYTHON'
import sys
from sympy.testing.runtests import PyTestReporter, SymPyTests

tests = SymPyTests(PyTestReporter(verbose=True, colors=False), "", False)
tests._testfiles = [sys.argv[1]]
sys.exit(0 if tests.test(sort=True) else 1)
PYTHON
venv/bin/python run.py "$folder/tests/test_two.py" > log.txt
grep '^test_' log.txt
venv/bin/python - <<'PYTHON'
from swebench.harness.log_parsers.python import parse_log_sympy

read = parse_log_sympy(open("log.txt").read(), None)
print("read:", read)
assert read == {"test_first": "PASSED"}, "the last test is read now"
PYTHON
