"""What this process may use of the machine, processors and memory, and whether an error says that memory ran out."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
# Per version of control groups: limit, use, and the entries of memory.stat that count files read.
GROUP_FILES = (
    ("memory.max", "memory.current", ("inactive_file", "active_file")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)
# How torch, SimpleITK and C++ libraries say it; NumPy raises MemoryError.
MEMORY_WORDS = re.compile(
    r"(can't|cannot|failed to|could not|unable to) allocate|(out[ _]?of|not enough|insufficient)[ _]?memory|bad_alloc"
    r"|MemoryAllocation|ENOMEM|could not create a (primitive(?! desc)|memory object)"  # the last is oneDNN's
    # Libraries of a GPU: cuBLAS, cuDNN and MIOpen; and cuDNN where no algorithm's workspace fits into what is free.
    r"|ALLOC_?FAILED|unable to find an engine",
    re.IGNORECASE,
)
# Of torch.OutOfMemoryError, by name: this file is imported where torch is not.
MEMORY_ERROR_NAME = "OutOfMemoryError"


def cpu_count() -> int:
    """Processors this process may use, which under a job scheduler are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory_bytes() -> int:
    """Memory this process may still take: the machine's free memory or what its cgroups leave, whichever is less."""
    free = [psutil.virtual_memory().available]
    try:
        listed = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return free[0]
    free += [cgroup_free_bytes(group) for group in control_groups(listed, CGROUPS)]
    return int(max(min(free), 0))


def control_groups(listed: str, root: Path) -> list[Path]:
    """Folders of the control groups that bound a process's memory, from its /proc/self/cgroup.

    Version 2 lists one group as ``0::/path``; version 1 one for each resource, and has memory in a folder of its own.
    Every parent may have a limit as well. In a container the path may be the host's and lead nowhere, but its top
    is then the container's own group.
    """
    groups = []
    for controllers, path in re.findall(r"^\d+:([^:\n]*):(/.*)$", listed, re.MULTILINE):
        if controllers == "" or "memory" in controllers.split(","):
            group = PurePosixPath(path)
            top = root / "memory" if controllers else root
            groups += [top / bounding.relative_to("/") for bounding in (group, *group.parents)]
    return groups or [root]


def cgroup_free_bytes(group: Path) -> float:
    """What the limit of one control group, of version 1 or 2, leaves; infinite if it has none."""
    for limit_file, use_file, cache_names in GROUP_FILES:
        try:
            limit = int((group / limit_file).read_text(encoding="utf-8"))
            used = int((group / use_file).read_text(encoding="utf-8"))
            # Files that were read count as used until the space is needed, though nobody uses them.
            cached = 0
            for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines():
                name, size = line.split()
                if name in cache_names:
                    cached += int(size)
            return limit - used + cached
        except (OSError, ValueError):  # no such group, or the limit is "max"
            continue
    return float("inf")


def ran_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that memory could not be had: the host's or a GPU's.

    The only place that knows in which words: whoever makes room and tries again, in training, prediction or planning,
    asks here.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
            return True
        if any(known.__name__ == MEMORY_ERROR_NAME for known in type(error).__mro__):
            return True
        if isinstance(error, RuntimeError | OSError) and MEMORY_WORDS.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
