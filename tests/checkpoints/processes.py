"""What runs on this machine, read from /proc."""

import time
from collections.abc import Callable
from pathlib import Path


def group(number: int) -> dict[int, str]:
    """Command lines of the processes of a process group, by process id; zombies left out."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
            command = (stat.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(fields[2]) == number and fields[0] != "Z":
            found[int(stat.parent.name)] = command
    return found


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    return 0


def sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        try:
            count += str(link.readlink()).startswith("socket:")
        except OSError:
            continue
    return count


def until(true: Callable[[], object], seconds: float = 60) -> bool:
    """Wait for a condition, at most that long."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
