"""What a processor tells of itself, from files made up after real ones."""

from pathlib import Path

import pytest

from sardonyx.runtime.hardware import cpu_features, cpu_name, read_bandwidth

X86 = """processor\t: 0
model name\t: AMD EPYC 9B14
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\n"


@pytest.mark.parametrize(
    ("text", "name", "features"),
    [
        (X86, "AMD EPYC 9B14", ("AVX2", "AVX-512", "AVX-512 VNNI", "AMX int8")),
        (ARM, None, ("NEON", "dot product", "int8 matrix multiply")),
        ("processor : 0\nflags :\n", None, ()),
        ("", None, None),
        (None, None, None),
    ],
)
def test_what_linux_tells(
    text: str | None, name: str | None, features: tuple[str, ...] | None, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(text)
    assert cpu_name(tmp_path) == name
    assert cpu_features(tmp_path) == features


def test_bandwidth_counts_what_all_threads_read() -> None:
    assert read_bandwidth(2, nbytes=1 << 20, repeats=2) > 0
