"""Check one module of lib/ against its examples in tests/.

python t.py NAME      says what is wrong first, or that all is good
python t.py -v NAME   one line an example, PASSED or FAILED, and a last line that counts them, all as pytest words it
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path


def failures(source: str, examples: Sequence[str]) -> list[str]:
    """For every example `call == value`, the empty text where it holds, else what came instead."""
    space: dict[str, object] = {}
    try:
        exec(compile(source, "module", "exec"), space)
    except Exception as error:
        return [type(error).__name__ for _ in examples]
    found = []
    for example in examples:
        call, want = example.rsplit(" == ", 1)
        try:
            got = repr(eval(call, space))
        except Exception as error:
            got = type(error).__name__
        found.append("" if got == want else f"{call} gives {got}, want {want}")
    return found


def main(arguments: Sequence[str]) -> int:
    verbose, name = arguments[0] == "-v", arguments[-1]
    module, tests = Path("lib", f"{name}.py"), Path("tests", f"{name}.txt")
    if not module.is_file() or not tests.is_file():
        print(f"no module {name}")
        return 1
    began = time.perf_counter()
    found = failures(module.read_text(), tests.read_text().splitlines())
    seconds = time.perf_counter() - began
    wrong = [failure for failure in found if failure]
    if verbose:
        for number, failure in enumerate(found):
            print("FAILED" if failure else "PASSED", f"{tests}::{number}", *([f"- {failure}"] if failure else []))
        counts = [(len(wrong), "failed"), (len(found) - len(wrong), "passed")]
        print("=====", ", ".join(f"{count} {word}" for count, word in counts if count), f"in {seconds:.2f}s =====")
    else:
        print(wrong[0] if wrong else "all good")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
