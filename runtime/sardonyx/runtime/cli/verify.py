"""`sardonyx verify`: whether an artifact is what it says it is, and the gate for pipelines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sardonyx.runtime.cli.options import Given, taking
from sardonyx.runtime.cli.places import PLACE_OPTIONS, place_of

if TYPE_CHECKING:
    from sardonyx.export.certificate import Certificate, Check


@taking("place", PLACE_OPTIONS)
def command(
    model: Annotated[str, typer.Argument(metavar="DIR", help="Artifact folder or model name.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Measure anew, against the source or its fp32 artifact."),
    ] = None,
    text: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Measure on this; may be repeated.")
    ] = None,
    thorough: Annotated[bool, typer.Option("--thorough", help="Measure on all texts.")] = False,
    store: Annotated[bool, typer.Option("--store", help="Put the new certificate into DIR.")] = False,
    baseline: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Be no worse than this certificate.json.")
    ] = None,
    max_kl: Annotated[float | None, typer.Option(metavar="X", min=0, help="Most mean KL, in nats.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the checks as JUnit XML.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print certificate and checks as JSON.")] = False,
    *,
    place: Given,
) -> None:
    """Check an artifact, and hold it to its limits.

    Files, structure and ways of feeding are checked here and now. Quality is taken
    from the certificate, or measured with --against: a source then takes 4 bytes
    of temporary disk for each parameter. Exit code 1: a limit was missed.
    """
    from sardonyx.runtime.cli.extras import extra
    from sardonyx.runtime.cli.first_use import ready_artifact
    from sardonyx.runtime.cli.terminal import progress_bars
    from sardonyx.runtime.errors import ArtifactError, RequestError

    with extra("export"):
        from sardonyx.export import check, verify
        from sardonyx.export.certificate import Check, demand, read_certificate
        from sardonyx.export.gate import gate, write_junit
    if against is None and (text or thorough or store):
        raise RequestError("--text, --thorough and --store are for measuring anew; add --against PATH")
    old = read_certificate(baseline) if baseline else None
    folder = ready_artifact(model)
    scope = verify.Scope(thorough, tuple(text or ()), place_of(place))
    try:
        with progress_bars() as progress:
            certificate, checks = check.check(folder, against, scope, progress)
    except ArtifactError as error:
        if junit:
            write_junit(junit, folder.name, [Check("files", str(error), "as written", met=False)])
        raise
    if certificate:
        checks += gate(certificate, old, max_kl, str(baseline))
    elif old or max_kl is not None:
        raise RequestError(f"{folder}: has no certificate to hold to that; measure it with --against PATH")
    if store and certificate:
        verify.store(folder, certificate, scope.place.provider.name)
    if junit:
        write_junit(junit, folder.name, checks)
    print(
        _json(certificate, checks) if as_json else _for_people(certificate, checks, anew=against is not None)
    )
    demand(str(folder), checks)


def _json(certificate: "Certificate | None", checks: Sequence["Check"]) -> str:
    import json

    import msgspec

    return json.dumps(msgspec.to_builtins({"certificate": certificate, "checks": checks}), indent=2)


def _for_people(certificate: "Certificate | None", checks: Sequence["Check"], *, anew: bool) -> str:
    from sardonyx.runtime.cli.quality import certificate_text, check_rows, quality_line
    from sardonyx.runtime.cli.terminal import table_text

    if certificate is None:
        quality = quality_line(None)
    else:
        when = "measured now" if anew else "as certified (not measured now: that takes --against PATH)"
        quality = f"Quality {when}\n\n{certificate_text(certificate)}"
    return f"{quality}\n\n{table_text(check_rows(checks))}"
