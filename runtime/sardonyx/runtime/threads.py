"""How many cores this process may really use: by affinity, cgroup quota and SMT siblings, not by the host;
and how much one of them has at hand.

Reads Linux's /proc and /sys below a root that tests can replace; elsewhere, or where a file is missing or
odd, that limit is taken as absent. It knows nothing of what the cores are used for.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


def usable_cores(root: Path = ROOT, cpus: frozenset[int] | None = None) -> int:
    """Number of physical cores this process can keep busy, at least 1.

    The least of: the physical cores behind `cpus` (by default the process's affinity), and the CPU time that
    its cgroups allow, rounded up.
    """
    quota = cgroup_quota(root)
    cores = physical_cores(affinity() if cpus is None else cpus, root)
    return max(1, cores if quota is None else min(cores, math.ceil(quota)))


def affinity() -> frozenset[int]:
    """The logical CPUs that this process may run on; all of them where the system cannot tell."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def physical_cores(cpus: frozenset[int], root: Path = ROOT) -> int:
    """How many physical cores carry these logical CPUs (SMT siblings count once); all are counted if unknown.

    onnxruntime is fastest with one thread for each physical core: siblings share the arithmetic units.
    """
    cores = set()
    for cpu in cpus:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        place = tuple(_text(topology / name).strip() for name in ("physical_package_id", "die_id", "core_id"))
        cores.add(place if place[-1] else ("logical", str(cpu)))
    return len(cores)


def cgroup_quota(root: Path = ROOT) -> float | None:
    """CPUs' worth of time that the process's cgroup and all above it grant; None if none sets a limit."""
    return min(_quotas(root), default=None)


def l2_cache_bytes(root: Path = ROOT) -> int | None:
    """Size of the first core's second cache, None if unknown: kernels choose their blocks by it."""
    size = _text(root / "sys/devices/system/cpu/cpu0/cache/index2/size").strip()
    return int(size[:-1]) << 10 if size.endswith("K") and size[:-1].isdecimal() else None


def _quotas(root: Path) -> Iterator[float]:
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:  # version 2: one tree, or the unified part of a hybrid one
            for folder in (*_upwards(mount, path), *_upwards(mount / "unified", path)):
                quota, _, period = _text(folder / "cpu.max").partition(" ")
                yield from _ratio(quota, period)
        elif "cpu" in controllers.split(","):
            for folder in (*_upwards(mount / controllers, path), *_upwards(mount / "cpu", path)):
                yield from _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The cgroup's folder and all above it. Containers may see the host's path: absent ones are skipped."""
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _ratio(quota: str, period: str) -> Iterator[float]:
    """Quota / period, both in microseconds; nothing for `max` and -1 (no limit) and what is no number."""
    try:
        cpus = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return
    if cpus > 0:
        yield cpus


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
