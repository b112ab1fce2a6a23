"""Certificates: stored, read, judged, and noticed when they were touched."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from certificates import LIMITS, certificate
from sardonyx.export.certificate import (
    Certificate,
    Invariant,
    Structure,
    checks,
    demand,
    encode,
    read_certificate,
    seal,
)
from sardonyx.runtime.errors import ArtifactError, VerificationFailed


def missed(found: Certificate) -> list[str]:
    return [check.what for check in checks(found) if not check.met]


def with_overall(**changes: Any) -> Certificate:
    found = certificate()
    return msgspec.structs.replace(found, overall=msgspec.structs.replace(found.overall, **changes))


def test_what_is_stored_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    sealed = seal(certificate())
    path.write_bytes(encode(sealed))
    assert read_certificate(path) == sealed
    assert encode(read_certificate(path)) == path.read_bytes()


def test_every_edit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(encode(seal(certificate())))
    text = path.read_text()
    for before, after in (('"kl_mean": 0.01', '"kl_mean": 0.001'), ('"model": "tiny"', '"model": "huge"')):
        assert before in text
        path.write_text(text.replace(before, after))
        with pytest.raises(ArtifactError, match=r"certificate\.json: edited since it was measured"):
            read_certificate(path)


def test_order_and_spacing_are_no_edit(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    fields = json.loads(encode(seal(certificate())))
    path.write_text(json.dumps(dict(reversed(fields.items()))))
    assert read_certificate(path) == seal(certificate())


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a certificate, or damaged"),
        (b"\xff\xfe", "not a certificate, or damaged"),
        (b"[1]", "not a certificate, or damaged"),
        (b'{"format": 0}', "certificate format 0, this is for 1"),
        (b"{}", "certificate format None"),
        (b'{"format": 1}', "not a certificate, or damaged"),
    ],
)
def test_what_is_no_certificate(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "old.json"
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=said) as caught:
        read_certificate(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value).splitlines()) == 1


def test_a_certificate_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="missing"):
        read_certificate(tmp_path / "certificate.json")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_certificate(tmp_path)


def test_a_good_certificate_meets_its_limits() -> None:
    assert checks(certificate())
    assert missed(certificate()) == []
    demand("tiny", checks(certificate()))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"kl_mean": 0.021}, "mean KL"),
        ({"kl_mean": float("nan")}, "mean KL"),
        ({"kl_p99": 0.31}, "p99 KL"),
        ({"top1": 0.89}, "top-1 agreement"),
        ({"top1": float("nan")}, "top-1 agreement"),
        ({"perplexity_ratio": 1.11}, "perplexity ratio"),
    ],
)
def test_each_limit_is_held(changes: dict[str, float], what: str) -> None:
    assert missed(with_overall(**changes)) == [what]


def test_a_figure_without_a_limit_is_not_judged() -> None:
    found = with_overall(kl_mean=9.0, top1=0.0)
    unlimited = msgspec.structs.replace(LIMITS, kl_mean=None, top1=None)
    assert missed(msgspec.structs.replace(found, limits=unlimited)) == []


def test_invariants_are_held_to_worst_and_flips() -> None:
    def broken(**changes: Any) -> Certificate:
        ways = {"name": "batch = alone", "positions": 10, "worst": 0.0, "kl_mean": 0.0, "flips": 0}
        found = Invariant(**{**ways, "limit": 0.0, "flips_limit": 0.1, **changes})
        return msgspec.structs.replace(certificate(), invariants=[found])

    assert missed(broken(flips=1)) == []
    assert missed(broken(flips=2)) == ["batch = alone: flips"]
    assert missed(broken(worst=1e-9)) == ["batch = alone: logits"]


def test_every_fault_of_the_structure_is_a_miss() -> None:
    faults = ["g_idx", "float zero points"]
    structure = Structure(ops={}, bytes={}, head="MatMul", minimum_onnxruntime="1.32", faults=faults)
    found = checks(msgspec.structs.replace(certificate(), structure=structure))
    assert [check.measured for check in found if not check.met] == faults


def test_a_demand_that_is_not_met_shows_what_was_missed() -> None:
    with pytest.raises(VerificationFailed, match="tiny: 2 of ") as caught:
        demand("tiny", checks(with_overall(kl_mean=0.5, top1=0.25)))
    assert caught.value.table == [
        ("MISSED", "MEASURED", "DEMANDED"),
        ("mean KL", "0.5", "at most 0.02"),
        ("top-1 agreement", "0.25", "at least 0.9"),
    ]
