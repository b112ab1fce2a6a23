"""Pulling from a hub: a local server that speaks the few endpoints that the client uses."""

import hashlib
import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest

from sardonyx.runtime.errors import DownloadError, MissingExtra
from sardonyx.runtime.fetch import pull
from sardonyx.runtime.fetch.hub import Repository, choose_files, parse_repository
from sardonyx.runtime.library import Library

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b'{"architectures": []}',
    "generation_config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{}",
    "special_tokens_map.json": b"{}",
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors.index.json": b"{}",
    "model-00001-of-00002.safetensors": b"1" * 3000,
    "model-00002-of-00002.safetensors": b"2" * 2000,
    "README.md": b"read me",
    "consolidated.safetensors": b"the same once more",
    "onnx/model.onnx": b"not wanted",
}
UNWANTED = {"README.md", "consolidated.safetensors", "onnx/model.onnx"}
GGUFS = {"small.Q4_1.gguf": b"GGUF small", "small.Q8_0.gguf": b"GGUF larger"}
REPOSITORIES = {"owner/model": FILES, "owner/ggufs": GGUFS, "owner/liar": {"model.gguf": b"GGUF"}}


class Hub(BaseHTTPRequestHandler):
    """`/api/models/OWNER/NAME[/revision/REVISION]` and `/OWNER/NAME/resolve/REVISION/FILE`."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        words = path.removeprefix("api/models/").split("/")
        name, rest = "/".join(words[:2]), words[2:]
        if name == "owner/gated":
            self.refuse(403, "GatedRepo")
        elif name not in REPOSITORIES:
            self.refuse(401, "RepoNotFound")
        elif rest and rest[1] not in ("main", "v1", COMMIT):
            self.refuse(404, "RevisionNotFound")
        elif path.startswith("api/"):
            self.answer(json.dumps(self.description(name)).encode(), {"Content-Type": "application/json"})
        else:
            data = REPOSITORIES[name]["/".join(rest[2:])]
            etag = hashlib.sha256(data).hexdigest()
            self.answer(data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})

    def description(self, name: str) -> dict[str, object]:
        siblings = [
            {"rfilename": file, "size": len(data), "lfs": self.pointer(name, data)}
            for file, data in REPOSITORIES[name].items()
        ]
        return {"id": name, "sha": COMMIT, "siblings": siblings, "private": False}

    def pointer(self, name: str, data: bytes) -> dict[str, object] | None:
        if len(data) < 1000 and not data.startswith(b"GGUF"):
            return None
        true = hashlib.sha256(data).hexdigest()
        return {"sha256": true if name != "owner/liar" else "0" * 64, "size": len(data), "pointerSize": 134}

    def answer(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", f"refused: {code}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Silence."""


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "home")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield
        server.shutdown()
        thread.join()


def unheard(done: int, total: int, what: str) -> None:
    """Progress that nobody watches."""


@pytest.mark.usefixtures("hub")
def test_only_the_needed_files_are_fetched(library: Library) -> None:
    reports: list[tuple[int, int, str]] = []
    folder = pull("owner/model", library, lambda *report: reports.append(report))
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: data for name, data in FILES.items() if name not in UNWANTED}
    assert not (folder / ".cache").exists()
    total = sum(map(len, found.values()))
    assert reports[0] == (0, total, "downloading owner/model")
    assert reports[-1] == (total, total, "downloading owner/model")
    assert [entry.name for entry in library.entries()] == ["owner/model"]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["owner/ggufs:small.Q8_0.gguf", "owner/ggufs@v1:small.Q8_0.gguf"])
def test_one_gguf_of_several(library: Library, name: str) -> None:
    path = pull(name, library, unheard)
    assert path.name == "small.Q8_0.gguf"
    assert path.read_bytes() == GGUFS["small.Q8_0.gguf"]
    assert [entry.name for entry in library.entries()] == [name]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("owner/none", "owner/none: no such repository on the hub, or a private one"),
        ("owner/gated", "owner/gated: gated; accept its terms"),
        ("owner/model@v9", "owner/model: has no revision v9"),
        ("owner/ggufs", "owner/ggufs: holds GGUF files; choose one, as owner/ggufs:small.Q4_1.gguf"),
        ("owner/ggufs:small.Q4.gguf", "no file small.Q4.gguf; did you mean small.Q4_1.gguf"),
        ("owner/model:x.gguf", "no file x.gguf; it has no .gguf file like it"),
        ("owner/liar:model.gguf", "model.gguf: SHA-256 .*, the hub says 0000"),
        ("owner/na--me", "not a name of the hub"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(library: Library, name: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message) as refusal:
        pull(name, library, unheard)
    assert "\n" not in str(refusal.value)
    assert list(library.checkpoints.iterdir()) == []


def test_without_a_network_it_is_said(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadError, match="owner/model: the hub did not deliver") as refusal:
        pull("owner/model", library, unheard)
    assert "\n" not in str(refusal.value)
    assert list(library.checkpoints.iterdir()) == []


def test_without_the_client_the_extra_is_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sardonyx\[hub\]'"):
        pull("owner/model", library, unheard)


def test_names_of_repositories() -> None:
    assert parse_repository("o/n") == Repository("o/n", None, None)
    assert parse_repository("o/n@refs/pr/1:sub/a b.gguf") == Repository("o/n", "refs/pr/1", "sub/a b.gguf")
    for name in ("plain", "a/b/c", "./folder/x", "/o/n", "o/", "ö/n", ""):
        assert parse_repository(name) is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["README.md"], "has no .safetensors file"),
        (["model.safetensors"], "has no config.json"),
        (["config.json", "sub/model.safetensors"], "has no .safetensors file"),
    ],
)
def test_what_cannot_be_exported_is_not_fetched(names: list[str], message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        choose_files(names, Repository("o/n", None, None))


def test_weights_of_any_name_when_there_is_no_usual_one() -> None:
    names = ["config.json", "weights.safetensors"]
    assert choose_files(names, Repository("o/n", None, None)) == names
