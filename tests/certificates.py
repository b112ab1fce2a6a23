"""A certificate of nothing in particular, which meets its limits."""

from typing import Any

import msgspec

from sardonyx.export.certificate import (
    CERTIFICATE_FORMAT,
    Certificate,
    Invariant,
    Limits,
    Machine,
    Structure,
    TextQuality,
)
from sardonyx.runtime.manifest import FileRecord, Source

LIMITS = Limits(kl_mean=0.02, kl_p99=0.3, top1=0.9, perplexity_ratio=1.1, noise=2, flips=0.1)

QUALITY = TextQuality(
    tokens=100,
    windows=4,
    kl_mean=0.01,
    kl_mean_error=0.001,
    kl_median=0.005,
    kl_p99=0.2,
    kl_max=0.5,
    top1=0.95,
    top5=0.99,
    reference_perplexity=20,
    reference_perplexity_error=1,
    perplexity=21,
    perplexity_error=1,
    perplexity_ratio=1.05,
    perplexity_ratio_error=0.01,
)


def certificate(**changes: Any) -> Certificate:
    """With some fields replaced; not sealed."""
    found = Certificate(
        format=CERTIFICATE_FORMAT,
        model="tiny",
        architecture="llama",
        parameters=1000,
        vocab_size=99,
        recipe="int4",
        source=Source("tiny", "safetensors", "ab" * 32),
        exporter="sardonyx 0",
        reference="tiny as fp32",
        convention="windows of 25 tokens",
        texts_sha256="cd" * 32,
        overall=QUALITY,
        texts={"prose": QUALITY},
        greedy=[],
        invariants=[
            Invariant(
                name="cached step = full recompute",
                positions=10,
                worst=1.5,
                kl_mean=0.001,
                flips=1,
                limit=2,
                flips_limit=0.1,
            )
        ],
        structure=Structure(ops={"MatMulNBits": 1}, bytes={}, head="MatMulNBits", minimum_onnxruntime="1.32"),
        machine=Machine(
            processor="abacus",
            system="Linux",
            threads=1,
            provider="CPUExecutionProvider",
            onnxruntime="1.32",
            numpy="2",
            python="3.11",
        ),
        limits=LIMITS,
        files={"model.onnx": FileRecord(1, "ef" * 32)},
        manifest_sha256="01" * 32,
    )
    return msgspec.structs.replace(found, **changes)
