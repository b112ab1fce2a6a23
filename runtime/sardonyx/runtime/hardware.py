"""What this machine is to a decoder: its vector units, and how fast its cores read memory.

Features are read off Linux's /proc below a root that tests can replace; other systems do not tell. It knows
nothing of models.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

ROOT = Path("/")

FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "avx2": "AVX2",
        "avx512f": "AVX-512",
        "avx_vnni": "AVX-VNNI",
        "avx512_vnni": "AVX-512 VNNI",
        "avx512_bf16": "AVX-512 BF16",
        "amx_int8": "AMX int8",
        "amx_bf16": "AMX bf16",
        "asimd": "NEON",
        "asimddp": "dot product",
        "i8mm": "int8 matrix multiply",
        "sve": "SVE",
    }
)
"""What onnxruntime's kernels for quantized weights ask for, by the kernel's names: x86's, then ARM's."""

INT8_DOTS = frozenset({"AVX-VNNI", "AVX-512 VNNI", "AMX int8", "dot product", "int8 matrix multiply"})
"""With one of these, four products of bytes are one instruction; without, int4 and int8 lose most."""


def cpu_name(root: Path = ROOT) -> str | None:
    """What the processor calls itself; None where the system does not tell."""
    return _field(root, "model name")


def cpu_features(root: Path = ROOT) -> tuple[str, ...] | None:
    """Those of FEATURES that the processor has; None where the system does not tell."""
    told = [flags for field in ("flags", "Features") if (flags := _field(root, field)) is not None]
    if not told:
        return None
    return tuple(name for flag, name in FEATURES.items() if flag in told[0].split())


def read_bandwidth(threads: int, nbytes: int = 256 << 20, repeats: int = 5) -> float:
    """Bytes per second that so many threads read from memory, at best of some repeats.

    Decoding one sequence reads every weight once a token: this is what bounds it. `nbytes` should be more
    than any cache holds.
    """
    import numpy as np

    block = np.ones(nbytes // 4 // threads, np.int32)  # touched, so that it is really there
    blocks = [block, *(block.copy() for _ in range(threads - 1))]
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            started = time.perf_counter()
            list(pool.map(np.max, blocks))  # numpy lets go of the interpreter while it reads
            best = min(best, time.perf_counter() - started)
    return sum(block.nbytes for block in blocks) / best


def _field(root: Path, name: str) -> str | None:
    """The first processor's line of that name in /proc/cpuinfo."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except (OSError, ValueError):
        return None
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return None
