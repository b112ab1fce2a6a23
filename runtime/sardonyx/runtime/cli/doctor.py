"""`sardonyx doctor`: what this machine has for running models, and whether it keeps its promises."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sardonyx.runtime.cli.options import Given, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS

if TYPE_CHECKING:
    from sardonyx.runtime.backends.providers import Provider


@taking("place", PLACE_OPTIONS)
def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Also predict and measure the speed of this one.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    *,
    place: Given,
) -> None:
    """Show providers, processor and memory; how fast they let a model be.

    Decoding one text reads every weight once a token: the memory says how fast
    that can be at most.
    """
    import json

    from sardonyx.runtime.backends.providers import PROVIDERS
    from sardonyx.runtime.backends.sessions import present
    from sardonyx.runtime.cli.first_use import ready_artifact

    artifact = ready_artifact(model) if model else None
    machine, here = _machine(), present()
    found = {
        "versions": _versions(),
        "providers": {name: _provider(provider, provider in here) for name, provider in PROVIDERS.items()},
        "machine": machine,
    }
    if artifact:
        found["model"] = _model(str(artifact), machine["read_bytes_per_s"], place)
    print(json.dumps(found, indent=2) if as_json else _for_people(found))


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    from sardonyx.runtime.backends.sessions import VERSION

    names = ("sardonyx", "numpy", "tokenizers")
    system = f"{platform.system()} {platform.machine()}"
    return {
        **{name: version(name) for name in names},
        "onnxruntime": VERSION,  # whichever package it is of
        "python": platform.python_version(),
        "system": system,
    }


def _provider(provider: "Provider", here: bool) -> dict[str, Any]:
    """Whether it is here, and what its attention gets right."""
    from sardonyx.runtime.backends import probe, sessions
    from sardonyx.runtime.backends.passes import single
    from sardonyx.runtime.backends.providers import Place

    if not here:
        return {"here": False, "package": provider.package, "why": sessions.absent(provider)}
    wrong, tokens, rows = [], None, True
    for kind in probe.KINDS:
        right = probe.rules(lambda data, feeds: sessions.run_once(data, feeds, Place(provider)), kind)
        if right is None:
            wrong.append(str(kind))
        elif right.widest:
            tokens = min(right.widest, tokens or right.widest)
        rows = rows and (right is None or right.together is single)
    return {
        "here": True,
        "version": sessions.version(provider),
        "wrong": wrong,
        "tokens_at_once": tokens,
        "rows_together": rows,
    }


def _machine() -> dict[str, Any]:
    import os

    from sardonyx.runtime.hardware import cpu_features, cpu_name, read_bandwidth
    from sardonyx.runtime.threads import usable_cores

    cores = usable_cores()
    return {
        "processor": cpu_name(),
        "features": cpu_features(),
        "cores_usable": cores,
        "cores": os.cpu_count(),
        "read_bytes_per_s": read_bandwidth(cores),
    }


def _model(artifact: str, bytes_per_s: float, place: Given) -> dict[str, Any]:
    from sardonyx.runtime.cli.first_use import load
    from sardonyx.runtime.cli.measure import measure
    from sardonyx.runtime.cli.terminal import progress_bars
    from sardonyx.runtime.manifest import WEIGHTS_NAME

    llm = load(artifact, None, place=place)
    with progress_bars() as progress:
        (speed,) = measure(llm, [32], 64, 3, lambda done, total: progress(done, total, "measuring"))
    weights = llm.manifest.files.get(WEIGHTS_NAME)
    elsewhere = place.get("provider", "cpu") != "cpu"  # in memory that was not measured
    return {
        "name": llm.manifest.name,
        "recipe": llm.manifest.recipe,
        "weight_bytes": weights.bytes if weights else None,
        "predicted_tokens_per_s": bytes_per_s / weights.bytes if weights and not elsewhere else None,
        "measured_tokens_per_s": speed.decode_tokens_per_s,
    }


def _for_people(found: dict[str, Any]) -> str:
    from sardonyx.runtime.cli.terminal import size_text, table_text
    from sardonyx.runtime.hardware import INT8_DOTS

    versions, machine = found["versions"], found["machine"]
    rows = [("PROVIDER", "VERSION", "ATTENTION")]
    for name, provider in found["providers"].items():
        if provider["here"]:
            rows.append((name, provider["version"], _attention(provider)))
        else:
            rows.append((name, "not here", provider["why"].removeprefix("not here; ").partition(" (")[0]))
    features = machine["features"]
    told = "not told by this system" if features is None else ", ".join(features) or "none that matter"
    if features is not None and not INT8_DOTS & set(features):
        told += " (no dot product of bytes: int4 and int8 are slow here)"
    facts = [
        ("processor", machine["processor"] or "not told by this system"),
        ("features", told),
        ("cores", f"{machine['cores_usable']} usable of {machine['cores']}"),
        ("memory", f"{size_text(machine['read_bytes_per_s'])} read per second, by that many threads"),
    ]
    if model := found.get("model"):
        facts += _speed(model)
    heading = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "system")
    return f"{heading}, {versions['system']}\n\n{table_text(rows)}\n\n{table_text(facts)}"


def _attention(provider: dict[str, Any]) -> str:
    if "attention" in provider["wrong"]:
        return "of plain operators alone: models exported with --target portable"
    limits = [f"wrong: {', '.join(provider['wrong'])}"] if provider["wrong"] else []
    if provider["tokens_at_once"]:
        limits.append(f"right for {provider['tokens_at_once']} tokens at once")
    if not provider["rows_together"]:
        limits.append("one text at a time")
    return "; ".join(limits) or "right"


def _speed(model: dict[str, Any]) -> list[tuple[str, str]]:
    from sardonyx.runtime.cli.terminal import size_text

    predicted = model["predicted_tokens_per_s"]
    most = f"{predicted:.0f} tokens/s at most" if predicted else "not known: its weights lie elsewhere"
    weights = f", {size_text(model['weight_bytes'])} of weights" if predicted else ""
    return [
        ("model", f"{model['name']} ({model['recipe']}){weights}"),
        ("predicted", most),
        ("measured", f"{model['measured_tokens_per_s']:.0f} tokens/s"),
    ]
