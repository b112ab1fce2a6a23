"""The gate of a pipeline: what counts as worse, what is no baseline, and the report."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from certificates import QUALITY, certificate
from sardonyx.export.certificate import Certificate, Check
from sardonyx.export.gate import gate, junit, write_junit
from sardonyx.runtime.errors import RequestError


def measured(**changes: Any) -> Certificate:
    return certificate(overall=msgspec.structs.replace(QUALITY, **changes))


def missed(new: Certificate, old: Certificate | None = None, max_kl: float | None = None) -> list[str]:
    return [check.what for check in gate(new, old, max_kl) if not check.met]


def test_without_demands_there_is_nothing_to_check() -> None:
    assert list(gate(certificate(), None, None)) == []


def test_a_budget_is_held() -> None:
    assert missed(measured(kl_mean=0.1), max_kl=0.1) == []
    assert missed(measured(kl_mean=0.1001), max_kl=0.1) == ["mean KL within --max-kl"]
    assert missed(measured(kl_mean=float("nan")), max_kl=0.1) == ["mean KL within --max-kl"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({}, []),
        ({"kl_mean": 0.0005, "top1": 1.0, "perplexity_ratio": 1.0}, []),
        ({"kl_mean": 0.0129}, []),
        ({"kl_mean": 0.0131}, ["mean KL beside the baseline"]),
        ({"perplexity_ratio": 1.08}, ["perplexity ratio beside the baseline"]),
        ({"top1": 0.93}, ["top-1 agreement beside the baseline"]),
    ],
)
def test_a_baseline_may_not_be_undercut(changes: dict[str, float], what: list[str]) -> None:
    assert missed(measured(**changes), certificate()) == what


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "huge"}, r"old\.json: a certificate of huge .*no baseline for tiny"),
        ({"parameters": 1001}, r"1,001 parameters.*no baseline for tiny \(llama, 1,000 parameters\)"),
        ({"vocab_size": 100}, "no baseline"),
        ({"texts_sha256": "00"}, r"old\.json: measured on other texts"),
    ],
)
def test_what_is_no_baseline(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        list(gate(certificate(), certificate(**changes), None, "old.json"))


def test_the_report_is_junit() -> None:
    checks = [
        Check("mean KL", "0.5", "at most 0.1", met=False),
        Check("structure <&>", 'a "b"', "none", met=True),
    ]
    root = ElementTree.fromstring(junit("tiny", checks))
    assert (root.tag, root[0].tag) == ("testsuites", "testsuite")
    for element in (root, root[0]):
        assert {name: element.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
            "tests": "2",
            "failures": "1",
            "errors": "0",
            "skipped": "0",
        }
    failed, passed = root.iter("testcase")
    assert (failed.get("classname"), failed.get("name")) == ("tiny", "mean KL")
    assert [child.tag for child in failed] == ["failure"]
    assert failed[0].get("message") == "measured 0.5, demanded at most 0.1"
    assert passed.get("name") == "structure <&>"
    assert not passed.findall("failure")


def test_a_report_is_written_where_it_should_be(tmp_path: Path) -> None:
    write_junit(tmp_path / "reports" / "report.xml", "tiny", [])
    assert ElementTree.parse(tmp_path / "reports" / "report.xml").getroot().tag == "testsuites"
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="the report cannot be written"):
        write_junit(tmp_path / "file" / "report.xml", "tiny", [])
