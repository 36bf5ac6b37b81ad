#!/bin/sh
# Turns a project as it is today ($1) into the one commit an instance starts from: its fix and its tests ($2) taken back.
# Prints the commit's id, which is the same on every machine.
set -eu
cd "$1"
git apply --reverse "$2/test.patch" "$2/gold.patch"
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null
export GIT_AUTHOR_NAME=aem GIT_AUTHOR_EMAIL=aem@localhost GIT_AUTHOR_DATE=2025-01-01T00:00:00Z
export GIT_COMMITTER_NAME=aem GIT_COMMITTER_EMAIL=aem@localhost GIT_COMMITTER_DATE=2025-01-01T00:00:00Z
git init --quiet --initial-branch=main --object-format=sha1
git add --all
git commit --quiet --message="The project before the fix"
git clean -fdqX  # leavings of test runs in the project folder
git rev-parse HEAD
