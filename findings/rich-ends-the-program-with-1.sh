#!/usr/bin/env bash
# Guess: a program that prints through rich into a closed pipe gets BrokenPipeError, as from print, and decides itself how to end.
# Version: rich 15.0.0
# Behaviour: Console.print catches the error and raises SystemExit(1), without a word. `except Exception` does not see it, in a worker
#   thread it travels through the future into the main thread, and the program ends with 1.
# Output: print: BrokenPipeError, rich: SystemExit 1
# Why here: 1 is what a CI gate says for BLOCK and pytest for failed tests, so a reader that stops early (`| head`, a log collector
#   that went away) looks like a regression. aem maps it to 141, as shells number SIGPIPE; other exits of libraries become 3.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet rich==15.0.0
cat > "$work/prints.py" << 'EOF'
import os
import sys
from rich.console import Console

read, write = os.pipe()
os.close(read)  # a reader that has gone
closed = os.fdopen(write, "w")
said = []
for name, show in (("print", lambda: print("x", file=closed, flush=True)), ("rich", lambda: Console(file=closed).print("x"))):
    try:
        show()
    except BaseException as error:
        said.append(f"{name}: {type(error).__name__} {getattr(error, 'code', '')}".strip())
sys.stderr.write(", ".join(said) + "\n")  # rich has turned stdout to /dev/null
os._exit(0)  # without flushing the closed pipe once more
EOF
said=$("$work/venv/bin/python" "$work/prints.py" 2>&1)
echo "$said"
[ "$said" = "print: BrokenPipeError, rich: SystemExit 1" ]
