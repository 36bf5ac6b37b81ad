#!/usr/bin/env bash
# Guess: `git apply` that exits with 0 has applied the patch; one whose files are not there fails.
# Version: git 2.39.5 (of the machine; no package index has it)
# Behaviour: in a folder below the top of a repository, paths are those of the repository, and what lies outside the folder is left out:
#   nothing is changed, nothing is said, and the exit status is 0. The folder need not be of that repository: a tree that was unpacked
#   into an ignored folder of another checkout is enough. `--check` agrees; only `--verbose` says "Skipped patch". Outside of any
#   repository the same command in the same tree applies it.
# Output: in a repository of its own: 0, changed; below another repository: 0, not changed; --check: 0; patch -p1: 0, changed
# Why here: a harness that takes the exit status for "patch applied" tests the unpatched tree, and every prediction of such a task counts
#   as a wrong answer, the gold patch too. Trees lie so where results are unpacked in a checkout, or an image keeps its repository
#   above the work tree. aem refuses such an image before a run, and a grading in one is lost, not a wrong answer.
set -euo pipefail
command -v patch git > /dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cat > change.diff << 'EOF'
diff --git a/file b/file
--- a/file
+++ b/file
@@ -1 +1 @@
-one
+two
EOF
git init --quiet own
git init --quiet other
echo unpacked > other/.gitignore
mkdir other/unpacked
tree() { echo one > "$1/file"; cd "$1"; }
state() { if grep -q two file; then echo changed; else echo "not changed"; fi; }
alone=$(tree own; git apply "$work/change.diff" && status=0 || status=$?; echo "$status, $(state)")
below=$(tree other/unpacked; git apply "$work/change.diff" 2>&1 && status=0 || status=$?; echo "$status, $(state)")
check=$(tree other/unpacked; git apply --check "$work/change.diff" 2>&1 && status=0 || status=$?; echo "$status")
plain=$(tree other/unpacked; patch --quiet -p1 -i "$work/change.diff" && status=0 || status=$?; echo "$status, $(state)")
line="in a repository of its own: $alone; below another repository: $below; --check: $check; patch -p1: $plain"
echo "$line"
test "$line" = "in a repository of its own: 0, changed; below another repository: 0, not changed; --check: 0; patch -p1: 0, changed"
