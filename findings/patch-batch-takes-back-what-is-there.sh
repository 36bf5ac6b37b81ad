#!/usr/bin/env bash
# Guess: `patch --batch` asks no questions: on a tree that already has the change it does nothing, or fails.
# Version: GNU patch 2.7.6 (of the machine; no package index has it)
# Behaviour: it assumes -R, takes the change *back*, and exits with 0. `git apply` refuses the same patch; `patch --forward` fails
#   and leaves the tree as it is.
# Output: git apply: 1; patch --forward: 1, change kept; patch --batch: 0, change gone
# Why here: `patch --batch --fuzz=5 -p1` is the last resort of the official way to apply a prediction. Applied twice, or in a
#   container where the agent's change is still present, it removes the fix and reports success. aem grades in fresh containers
#   and calls the official steps on them only.
set -euo pipefail
command -v patch git > /dev/null
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
printf 'one\ntwo\nthree\n' > file
cat > change.diff << 'EOF'
--- a/file
+++ b/file
@@ -1,3 +1,3 @@
 one
-two
+TWO
 three
EOF
state() { if grep -q TWO file; then echo kept; else echo gone; fi; }
patch --quiet --batch -p1 -i change.diff
git apply change.diff 2> /dev/null && git=0 || git=$?
patch --quiet --forward --reject-file=- -p1 -i change.diff > /dev/null && forward=0 || forward=$?
after_forward=$(state)
patch --batch -p1 -i change.diff > /dev/null && batch=0 || batch=$?
line="git apply: $git; patch --forward: $forward, change $after_forward; patch --batch: $batch, change $(state)"
echo "$line"
test "$line" = "git apply: 1; patch --forward: 1, change kept; patch --batch: 0, change gone"
