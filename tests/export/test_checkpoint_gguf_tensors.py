"""GGUF tensors against the `gguf` package: every type, any rows, and files that lie."""

import contextlib
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from checkpoint_files import (
    LLAMA_METADATA,
    Floats,
    gguf_tensors,
    llama_tensors,
    random,
    stored_as,
    write_gguf,
    write_llama,
)
from sardonyx.export.checkpoint import open_checkpoint
from sardonyx.export.checkpoint.gguf_header import MAGIC, read_header
from sardonyx.export.checkpoint.gguf_tensors import READABLE, stored_tensors
from sardonyx.export.checkpoint.stored import Deinterleaved, StoredTensor
from sardonyx.runtime.errors import SourceError

FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def one_tensor(path: Path, values: Floats, kind: Kind) -> StoredTensor:
    header = read_header(write_gguf(path, {"some": values}, {}, {"some": kind}))
    return stored_tensors(path, header.tensors)["some"]


@pytest.mark.parametrize("name", READABLE)
def test_each_type_reads_as_the_package_dequantizes_it(name: str, tmp_path: Path) -> None:
    kind, values = Kind[name], random(24, 512)
    whole = gguf.quants.dequantize(stored_as(values, kind), kind)
    tensor = one_tensor(tmp_path / "x.gguf", values, kind)
    assert tensor.shape == (24, 512)
    assert tensor.dtype == {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(name, name.lower())
    np.testing.assert_array_equal(tensor.rows(0, 24), whole)
    np.testing.assert_array_equal(tensor.rows(5, 17), whole[5:17])
    assert tensor.rows(7, 7).shape == (0, 512)
    assert tensor.rows(0, 1).dtype == np.float32


@pytest.mark.parametrize("shape", [(96,), (5, 64), (3, 4, 64), (2, 3, 4, 32)])
def test_any_number_of_axes(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = random(*shape)
    tensor = one_tensor(tmp_path / "x.gguf", values, Kind.F32)
    assert tensor.shape == shape
    np.testing.assert_array_equal(tensor.rows(1, shape[0]), values[1:])


def test_rows_are_read_a_few_megabytes_at_a_time(tmp_path: Path) -> None:
    values = random(3, 4 << 20)  # each row is more than is read at a time
    tensor = one_tensor(tmp_path / "x.gguf", values, Kind.F16)
    tracemalloc.start()
    rows = tensor.rows(1, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(rows, values[1:].astype(np.float16).astype(np.float32))
    assert peak < rows.nbytes + 40e6  # one row, stored and decoded, above the result


@pytest.mark.parametrize("rows", [(-1, 3), (2, 1), (0, 9)])
def test_rows_that_are_not_there(rows: tuple[int, int], tmp_path: Path) -> None:
    tensor = one_tensor(tmp_path / "x.gguf", random(8, 32), Kind.F32)
    with pytest.raises(IndexError, match="some has 8 rows"):
        tensor.rows(*rows)


@given(data=st.data())
@FUZZ
def test_interleaved_rows_come_back_in_order_from_any_range(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "qk.gguf"
    if not path.exists():
        write_llama(path)
    name = data.draw(st.sampled_from(["q_proj", "k_proj"]))
    original = llama_tensors()[f"model.layers.0.self_attn.{name}.weight"]
    tensor = open_checkpoint(path).tensor(f"model.layers.0.self_attn.{name}.weight")
    start = data.draw(st.integers(0, len(original)))
    stop = data.draw(st.integers(start, len(original)))
    assert isinstance(tensor, Deinterleaved)
    np.testing.assert_array_equal(tensor.rows(start, stop), original[start:stop])


def test_quantized_interleaved_rows(tmp_path: Path) -> None:
    tensors = gguf_tensors(llama_tensors())
    path = write_gguf(tmp_path / "x.gguf", tensors, LLAMA_METADATA, {"blk.0.attn_q.weight": Kind.Q4_1})
    original = llama_tensors()["model.layers.0.self_attn.q_proj.weight"]
    stored = gguf.quants.dequantize(stored_as(original, Kind.Q4_1), Kind.Q4_1)
    tensor = open_checkpoint(path).tensor("model.layers.0.self_attn.q_proj.weight")
    assert (tensor.dtype, tensor.shape) == ("q4_1", original.shape)
    np.testing.assert_array_equal(tensor.rows(3, 40), stored[3:40])


def test_cut_at_every_tenth_and_byte_by_byte(tmp_path: Path) -> None:
    """Wherever a download stopped, one line says so."""
    whole = write_llama(tmp_path / "whole.gguf", {"general.name": "little"}).read_bytes()
    cut = tmp_path / "cut.gguf"
    lengths = {len(whole) * tenth // 10 for tenth in range(10)} | set(range(0, 1200, 7)) | {len(whole) - 40}
    for length in sorted(lengths):
        cut.write_bytes(whole[:length])
        with pytest.raises(
            SourceError, match=r"(cut short: .*|the file is empty); download it again$"
        ) as caught:
            open_checkpoint(cut)
        assert "\n" not in str(caught.value)


def test_a_cut_tensor_is_named(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf")
    whole = path.read_bytes()
    last = max(read_header(path).tensors, key=lambda entry: entry.offset)
    path.write_bytes(whole[: last.offset + 100])
    with pytest.raises(
        SourceError, match=rf"tensor {last.name} ends at byte \d+, the file has {last.offset + 100}"
    ):
        open_checkpoint(path)


def test_a_file_that_shrinks_later(tmp_path: Path) -> None:
    tensor = one_tensor(tmp_path / "x.gguf", random(8, 32), Kind.F32)
    tensor.path.write_bytes(tensor.path.read_bytes()[:-200])
    with pytest.raises(SourceError, match="became shorter while tensor some"):
        tensor.rows(0, 8)


def tensor_header(*, dimensions: tuple[int, ...] = (32, 4), kind: int = 0, count: int = 1) -> bytes:
    """A header of version 3 with one tensor, by hand."""
    shape = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    entry = struct.pack("<Q", 4) + b"some" + shape + struct.pack("<IQ", kind, 0)
    return MAGIC + struct.pack("<IQQ", 3, count, 0) + entry + bytes(1024)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"GGML" + bytes(100), "not a GGUF file"),
        (MAGIC + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (MAGIC + struct.pack("<IQQ", 1, 0, 0), "version 1 is not supported"),
        (MAGIC + struct.pack("<IQQ", 9, 0, 0), "version 9 is not supported"),
        (MAGIC + struct.pack("<IQQ", 3, 1 << 60, 1), "cut short"),
        (MAGIC + struct.pack("<IQQ", 3, 0, 1 << 63), "cut short"),
        (tensor_header(kind=99), "tensor some has the unknown type 99"),
        (tensor_header(kind=16), "tensor some is stored as IQ2_XXS"),
        (tensor_header(dimensions=(33, 4), kind=2), "shape 4x33 cannot be Q4_0"),
        (tensor_header(dimensions=(64,), kind=2), "shape 64 cannot be Q4_0"),
        (tensor_header(dimensions=(32, 0)), "shape 0x32 cannot be F32"),
        (tensor_header(dimensions=(1 << 62, 1 << 62, 1 << 62)), "cut short: tensor some ends at byte"),
        (tensor_header(dimensions=(2, 2, 2, 2, 2)), "tensor some has 5 dimensions"),
    ],
)
def test_headers_that_lie(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        stored_tensors(path, read_header(path).tensors)


def field(kind: int, value: bytes, key: bytes = b"k", count: int = 1) -> bytes:
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + value
    return MAGIC + struct.pack("<IQQ", 3, 0, count) + entry * count


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (field(4, bytes(4), count=2), "metadata k is given twice"),
        (field(4, bytes(4), b"a\nb"), r"the name 'a\\nb' is not one"),
        (field(13, bytes(4)), "metadata k has the unknown type 13"),
        (field(9, struct.pack("<IQ", 9, 0)), "array of the unsupported type 9"),
        (field(9, struct.pack("<IQ", 8, 1 << 60)), "cut short"),
        (field(9, struct.pack("<IQ", 0, 1 << 60)), "cut short"),
        (field(8, struct.pack("<Q", (1 << 64) - 1)), "cut short"),
        (field(8, struct.pack("<Q", 2) + b"\xff\xfe"), "not UTF-8"),
        (field(4, struct.pack("<I", 24), b"general.alignment"), "aligned to 24 bytes"),
        (field(8, struct.pack("<Q", 0), b"general.alignment"), "should be of type int"),
    ],
)
def test_metadata_that_lies(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read_header(path)


def test_a_count_that_a_huge_file_could_hold_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(field(9, struct.pack("<IQ", 8, 1 << 30)))
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    tracemalloc.start()
    with pytest.raises(SourceError, match="a header value of length 1073741824"):
        read_header(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


@given(data=st.data())
@FUZZ
def test_a_damaged_file_is_one_line_or_a_model(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "whole.gguf"
    if not path.exists():
        write_llama(path, {"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.eos_token_id": 1})
    content = bytearray(path.read_bytes())
    end = min(entry.offset for entry in read_header(path).tensors)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, end - 1))
        junk = data.draw(st.binary(min_size=1, max_size=8))
        content[at : at + len(junk)] = junk
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(content)
    with contextlib.suppress(SourceError):
        checkpoint = open_checkpoint(damaged)
        for name in checkpoint.names():
            tensor = checkpoint.tensor(name)
            assert tensor.rows(0, 1).shape == (1, *tensor.shape[1:])


def test_overlapping_and_repeated_tensors(tmp_path: Path) -> None:
    path = write_llama(tmp_path / "x.gguf")
    header = read_header(path)
    first, second = header.tensors[:2]
    moved = type(second)(second.name, second.shape, second.type_id, first.offset)
    with pytest.raises(SourceError, match="overlap; the file is damaged"):
        stored_tensors(path, (first, moved))
    with pytest.raises(SourceError, match="is listed twice"):
        stored_tensors(path, (first, first))


def test_a_gguf_by_content_not_by_name(tmp_path: Path) -> None:
    write_llama(tmp_path / "x.gguf").rename(tmp_path / "model.bin")
    assert open_checkpoint(tmp_path / "model.bin").format == "gguf"
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SourceError, match="not a model that can be read"):
        open_checkpoint(tmp_path / "notes.txt")
    with pytest.raises(SourceError, match="no such file or folder"):
        open_checkpoint(tmp_path / "nothing")
