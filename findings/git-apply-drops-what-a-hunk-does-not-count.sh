#!/usr/bin/env bash
# Guess: `git apply` is all or nothing; a hunk whose header counts its lines wrongly is a corrupt patch, as git says of one.
# Version: git 2.39.5, GNU patch 2.7.6 (of the machine; no package index has them), unidiff 1.0.1
# Behaviour: that is so where the header counts too many lines. Where it counts too few, what is beyond the count is taken for text between
#   patches and left out: `git apply --verbose` says "Applied patch cleanly" and exits with 0, patch too, and unidiff reads as few lines.
#   Only `git apply --recount`, which goes by the lines themselves, applies all of it.
# Output: a hunk of 2 new lines that counts 3 too many: git 128; one that counts 1: git 0 with 1 line, --check 0, patch 0 with 1 line,
#   unidiff 1 line, --recount 0 with 2 lines
# Why here: models that write diffs count badly, in both directions. The official way to apply a prediction goes by the exit status, so half
#   of a right fix is tested, and the report says that the patch was applied and the answer wrong; one that counts too many is refused and
#   reported as such. Diffs that git made do not have this. aem grades as the official way does, and marks such a patch in audit.json.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet unidiff==1.0.1
cd "$work"
git init --quiet tree
cd tree
printf 'a\nb\nc\n' > f.py
git add f.py
body=$'\n a\n+first\n b\n+second\n c\n'
head=$'diff --git a/f.py b/f.py\n--- a/f.py\n+++ b/f.py\n'
printf '%s@@ -1,3 +1,8 @@%s' "$head" "$body" > ../more.diff
printf '%s@@ -1,2 +1,3 @@%s' "$head" "$body" > ../fewer.diff

run() { # the exit status of a command, and how many of the two lines are then there
    git checkout --quiet f.py
    local status=0
    "$@" > ../said 2>&1 || status=$?
    printf '%s %s' "$status" "$(grep -cE 'first|second' f.py || true)"
}
more=$(run git apply --verbose ../more.diff)
fewer=$(run git apply --verbose ../fewer.diff)
grep -q 'Applied patch f.py cleanly' ../said
check=$(run git apply --check ../fewer.diff)
patch=$(run patch --batch --fuzz=5 -p1 -i ../fewer.diff)
recount=$(run git apply --recount ../fewer.diff)
read_by_unidiff=$(../venv/bin/python -c 'import sys, unidiff; print(unidiff.PatchSet(open(sys.argv[1]))[0].added)' ../fewer.diff)
echo "a hunk of 2 new lines that counts 3 too many: git ${more% *}; one that counts 1: git ${fewer% *} with ${fewer#* } line," \
    "--check ${check% *}, patch ${patch% *} with ${patch#* } line, unidiff $read_by_unidiff line, --recount ${recount% *} with" \
    "${recount#* } lines"
[ "$more" = "128 0" ] && [ "$fewer" = "0 1" ] && [ "$check" = "0 0" ] && [ "$patch" = "0 1" ]
[ "$recount" = "0 2" ] && [ "$read_by_unidiff" = 1 ]
