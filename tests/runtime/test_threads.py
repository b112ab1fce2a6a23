"""Usable cores on made-up machines: a folder stands in for the root of the file system."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sardonyx.runtime.threads import affinity, cgroup_quota, physical_cores, usable_cores

FOUR = frozenset(range(4))


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def topology(cores: list[tuple[int, int]]) -> dict[str, str]:
    """Files for logical CPUs 0, 1, ... at (package, core)."""
    folder = "sys/devices/system/cpu/cpu{}/topology/{}"
    packages = {
        folder.format(cpu, "physical_package_id"): f"{package}\n" for cpu, (package, _) in enumerate(cores)
    }
    return packages | {folder.format(cpu, "core_id"): f"{core}\n" for cpu, (_, core) in enumerate(cores)}


V2 = "sys/fs/cgroup/"
V1 = "sys/fs/cgroup/cpu,cpuacct/"
SELF = "proc/self/cgroup"


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({SELF: "0::/a/b\n", V2 + "a/b/cpu.max": "max 100000\n"}, None),
        ({SELF: "0::/a/b\n", V2 + "a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({SELF: "0::/a/b\n", V2 + "a/b/cpu.max": "max 100000\n", V2 + "a/cpu.max": "50000 100000\n"}, 0.5),
        ({SELF: "0::/a/b\n", V2 + "a/b/cpu.max": "300000 100000", V2 + "cpu.max": "200000 100000"}, 2.0),
        # a container that sees the host's path, but only its own files
        ({SELF: "0::/system.slice/docker-1.scope\n", V2 + "cpu.max": "100000 50000\n"}, 2.0),
        ({SELF: "0::/../../other\n", V2 + "cpu.max": "100000 100000\n"}, 1.0),
        (
            {
                SELF: "4:cpu,cpuacct:/x\n",
                V1 + "x/cpu.cfs_quota_us": "-1",
                V1 + "x/cpu.cfs_period_us": "100000",
            },
            None,
        ),
        (
            {
                SELF: "4:cpu,cpuacct:/x\n",
                V1 + "cpu.cfs_quota_us": "250000",
                V1 + "cpu.cfs_period_us": "100000",
            },
            2.5,
        ),
        # mounted under its plain name, in a hybrid hierarchy
        (
            {
                SELF: "9:cpuset:/\n1:cpu:/x\n0::/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000",
                V2 + "unified/x/cpu.max": "400000 100000",
            },
            1.0,
        ),
        ({SELF: "9:cpuset:/x\n", "sys/fs/cgroup/cpuset/x/cpu.cfs_quota_us": "1"}, None),
    ],
)
def test_the_tightest_cgroup_counts(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cgroup_quota(machine(tmp_path, files)) == quota


@pytest.mark.parametrize(
    "text", ["", "0", "0 0", "0 100000", "x y", "100000", "max", "-1 100000", "1 2 3", "\x00\xff"]
)
def test_an_odd_limit_is_no_limit(tmp_path: Path, text: str) -> None:
    assert cgroup_quota(machine(tmp_path, {SELF: "0::/\n", V2 + "cpu.max": text})) is None


@given(st.binary(max_size=60), st.binary(max_size=20), st.binary(max_size=10))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_odd_files_never_raise(tmp_path: Path, cgroup: bytes, limit: bytes, core: bytes) -> None:
    machine(tmp_path, {SELF: "", V2 + "cpu.max": "", **topology([(0, 0)])})
    (tmp_path / SELF).write_bytes(cgroup)
    (tmp_path / V2 / "cpu.max").write_bytes(limit)
    (tmp_path / "sys/devices/system/cpu/cpu0/topology/core_id").write_bytes(core)
    assert 1 <= usable_cores(tmp_path, FOUR) <= 4


def test_siblings_share_a_core(tmp_path: Path) -> None:
    machine(tmp_path, topology([(0, 0), (0, 1), (0, 0), (0, 1)]))
    assert physical_cores(FOUR, tmp_path) == 2
    assert physical_cores(frozenset({0, 2}), tmp_path) == 1
    assert physical_cores(frozenset({0, 1}), tmp_path) == 2


def test_core_numbers_repeat_in_each_package(tmp_path: Path) -> None:
    assert physical_cores(FOUR, machine(tmp_path, topology([(0, 0), (0, 1), (1, 0), (1, 1)]))) == 4


def test_without_topology_each_cpu_is_a_core(tmp_path: Path) -> None:
    assert physical_cores(FOUR, tmp_path) == 4


@pytest.mark.parametrize(
    ("limit", "cores"), [("max", 4), ("350000", 4), ("250000", 3), ("10000", 1), ("900000", 4)]
)
def test_the_least_of_all_limits_rounded_up(tmp_path: Path, limit: str, cores: int) -> None:
    machine(tmp_path, {SELF: "0::/\n", V2 + "cpu.max": f"{limit} 100000"})
    assert usable_cores(tmp_path, FOUR) == cores


def test_here() -> None:
    assert 1 <= usable_cores() <= len(affinity()) <= (os.cpu_count() or 1)


def test_where_there_is_no_affinity_all_cpus_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert affinity() == frozenset(range(6))
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert affinity() == {0}
