"""Read what running processes have cost: processor seconds and memory, by the kernel's own count (proc(5))."""

import os
from collections.abc import Sequence
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pids: Sequence[int]) -> float:
    """Processor seconds of processes and all below them, ended children included when they were waited for."""
    return sum(map(_ticks, with_children(pids))) / TICKS_PER_S


def with_children(pids: Sequence[int]) -> list[int]:
    """These processes and all below them, parents first."""
    found = list(pids)
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                found += [int(one) for one in task.read_text().split() if int(one) not in found]
            except OSError:
                continue  # It has just ended.
    return found


def rss_mb(pid: int) -> float:
    """Megabytes resident of one process."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    # utime and stime; cutime and cstime of children that were waited for, which are in nobody else's count any more.
    return sum(map(int, fields[11:15]))
