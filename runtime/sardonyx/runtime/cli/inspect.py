"""`sardonyx inspect`: what an artifact, a checkpoint or a folder of another program is."""

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sardonyx.runtime.cli.terminal import size_text, table_text

if TYPE_CHECKING:
    from sardonyx.export.checkpoint import Checkpoint


def command(
    name: Annotated[
        str, typer.Argument(metavar="PATH", help="Artifact, checkpoint, or a name that `list` shows.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as JSON.")] = False,
) -> None:
    """Say what an artifact, a checkpoint or another program's folder is.

    Of an artifact only the description is read: loading it checks its files.
    """
    import json

    path, facts = facts_of(name)
    print(
        json.dumps({"path": str(path), **facts}, indent=2, ensure_ascii=False)
        if as_json
        else _for_people(facts)
    )


def facts_of(name: str) -> tuple[Path, dict[str, Any]]:
    """Where `name` is, and what is known of it. Raises SardonyxError."""
    from sardonyx.runtime.neighbours import locate

    holds_weights = any(Path(name).glob("*.safetensors")) if Path(name).is_dir() else False
    if not holds_weights and (graph := locate(name)):  # a checkpoint may have graphs beside it
        from sardonyx.runtime.cli.neighbour import neighbour_facts

        return graph, neighbour_facts(graph)
    path, is_artifact = find(name)
    if is_artifact:
        return path, artifact_facts(path)
    from sardonyx.export.checkpoint import open_checkpoint

    return path, checkpoint_facts(open_checkpoint(path))


def find(name: str) -> tuple[Path, bool]:
    """Where `name` is, a path or else a name of the library, and whether it is an artifact."""
    from sardonyx.runtime.library import Library
    from sardonyx.runtime.manifest import MANIFEST_NAME, MODEL_NAME

    library = Library.of_user()
    path = Path(name)
    if not path.exists():
        entry = library.find(name)
        path = (library.checkpoint(entry.name) or entry.path) if entry.kind == "checkpoint" else entry.path
    return path, any((path / file).is_file() for file in (MANIFEST_NAME, MODEL_NAME))


def checkpoint_facts(checkpoint: "Checkpoint") -> dict[str, Any]:
    """Name, format, configuration, and by type of tensor: how many, parameters, bytes."""
    types: dict[str, dict[str, int]] = {}
    for name in sorted(checkpoint.names()):
        tensor = checkpoint.tensor(name)
        counts = types.setdefault(tensor.dtype, {"tensors": 0, "parameters": 0, "bytes": 0})
        counts["tensors"] += 1
        counts["parameters"] += prod(tensor.shape)
        counts["bytes"] += tensor.raw(0, 1).nbytes * tensor.shape[0]
    return {
        "name": checkpoint.name,
        "format": checkpoint.format,
        "parameters": sum(counts["parameters"] for counts in types.values()),
        "types": types,
        "config": dict(checkpoint.config),
        "files": {path.name: path.stat().st_size for path in checkpoint.files},
    }


def artifact_facts(folder: Path) -> dict[str, Any]:
    """The manifest, what follows from it, and the quality that was measured (None: it was not)."""
    import msgspec

    from sardonyx.export.certificate import stored_certificate
    from sardonyx.runtime.cli.quality import quality_line
    from sardonyx.runtime.manifest import read_manifest

    manifest, certificate = read_manifest(folder), stored_certificate(folder)
    facts: dict[str, Any] = msgspec.to_builtins(manifest)
    return {
        **facts,
        "cache_bytes_per_token": manifest.cache_bytes_per_token(),
        "quality": msgspec.to_builtins(certificate.overall) if certificate else None,
        "quality_line": quality_line(certificate),
    }


def _for_people(facts: dict[str, Any]) -> str:
    from sardonyx.runtime.cli.bits import bits_rows, searched_rows
    from sardonyx.runtime.cli.neighbour import neighbour_lines

    kinds = {"recipe": _artifact_lines, "layout": neighbour_lines, "types": _checkpoint_lines}
    sections: list[Sequence[Sequence[str]]] = []
    sections.append(next(lines for name, lines in kinds.items() if name in facts)(facts))
    if "recipe" in facts:
        sections.append(bits_rows(facts["weights"], facts["sensitivity"]))
        sections += [searched_rows(facts["searched"])] if "searched" in facts else []
    sections.append([("FILE", "SIZE"), *((name, _size(file)) for name, file in facts["files"].items())])
    return "\n\n".join(table_text(rows) for rows in sections)


def _artifact_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    cache = facts["cache_bytes_per_token"]
    states = Counter(f"{state['kind']} {state['shape']} {state['dtype']}" for state in facts["states"])
    source = facts["source"]
    return [
        ("name", facts["name"]),
        ("architecture", facts["architecture"]),
        ("parameters", f"{facts['parameters']:,}"),
        ("recipe", f"{facts['recipe']} for {facts['target']}"),
        ("context", f"{facts['context_length']:,} tokens"),
        *(("adapter", adapter["name"]) for adapter in facts.get("adapters", ())),
        ("states", _counts(states)),
        ("cache", f"{cache:,} bytes per token, {size_text(cache * facts['context_length'])} when full"),
        ("source", f"{source['name']} ({source['format']}, SHA-256 {source['sha256'][:12]}...)"),
        ("quality", facts["quality_line"]),
        ("needs", f"onnxruntime {facts['minimum_onnxruntime']} or newer"),
        ("made by", facts["exporter"]),
    ]


def _checkpoint_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    types = (
        f"{counts['tensors']} x {name} ({counts['parameters']:,} in {size_text(counts['bytes'])})"
        for name, counts in facts["types"].items()
    )
    return [
        ("name", facts["name"]),
        ("format", facts["format"]),
        ("parameters", f"{facts['parameters']:,}"),
        ("tensors", ", ".join(types)),
        *((field, str(value)) for field, value in facts["config"].items()),
    ]


def _counts(counter: "Counter[str]") -> str:
    return ", ".join(f"{count} x {what}" for what, count in counter.items())


def _size(file: dict[str, Any] | int) -> str:
    return size_text(file["bytes"] if isinstance(file, dict) else file)
