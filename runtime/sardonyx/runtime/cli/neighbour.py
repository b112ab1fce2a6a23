"""What `inspect` says of a folder that another program wrote."""

from collections import Counter
from pathlib import Path
from typing import Any

from sardonyx.runtime.errors import ArtifactError


def neighbour_facts(graph: Path) -> dict[str, Any]:
    """What its files say, how its graph wants to be fed, and what it is slow at."""
    from sardonyx.runtime.neighbours import read

    neighbour = read(graph)
    if neighbour is None:
        raise ArtifactError(f"{graph}: not in a folder of a known layout")
    manifest, signature = neighbour.manifest, neighbour.signature
    return {
        "name": manifest.name,
        "layout": manifest.recipe,
        "written_by": manifest.exporter,
        "architecture": manifest.architecture,
        "vocab_size": manifest.vocab_size,
        "context_length": manifest.context_length,
        "inputs": [*signature.inputs],
        "states": dict(Counter(f"{state.shape} {state.dtype}" for state in manifest.states)),
        "cache_bytes_per_token": manifest.cache_bytes_per_token(),
        "cache": "in place" if signature.in_place else "copied",
        "batches": not signature.mixing,
        "logits": "of the last token of a pass" if signature.last_only else "of any token",
        "slow": list(neighbour.slow),
        "files": {path.name: path.stat().st_size for path in neighbour.files},
    }


def neighbour_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts for people."""
    ways = {"in place": "written in place", "copied": "copied to the graph and back at each step"}
    rows = (
        "share passes"
        if facts["batches"]
        else "each alone: the graph finds one scale for all tokens of a pass"
    )
    cache = facts["cache_bytes_per_token"]
    return [
        ("name", facts["name"]),
        ("layout", facts["layout"]),
        ("written by", facts["written_by"]),
        ("architecture", facts["architecture"]),
        ("vocabulary", f"{facts['vocab_size']:,} tokens"),
        ("context", f"{facts['context_length']:,} tokens"),
        ("inputs", ", ".join(facts["inputs"])),
        ("states", ", ".join(f"{count} x {what}" for what, count in facts["states"].items())),
        ("cache", f"{cache:,} bytes per token, {ways[facts['cache']]}"),
        ("rows", rows),
        ("logits", facts["logits"]),
        *(("slow", line) for line in facts["slow"]),
        ("quality", "not measured: sardonyx verify DIR --against SOURCE"),
    ]
