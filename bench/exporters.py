"""What other exporters make of a model by default, beside what sardonyx does: bytes against divergence.

    python bench/exporters.py SOURCE.gguf WORK --genai ENV/bin/python --optimum ENV/bin/python --plot FILE.png

Each exporter runs in an environment of its own, by its own command and with its own defaults:
onnxruntime-genai with torch and transformers; optimum-onnx with gguf, accelerate, torch and transformers
before 5. All start from the same float32 weights, and every folder gets the same tokenizer, so that all are
measured on the same tokens against the same reference. What lies in WORK already is not made again.

Prints a table and writes WORK/figures.json; the picture is that of `sardonyx compare`, with the extra [plot].
"""

import argparse
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from sardonyx.export.api import export
from sardonyx.export.certificate import Certificate, stored_certificate
from sardonyx.export.check import check
from sardonyx.export.verify import Scope
from sardonyx.runtime.cli import picture
from sardonyx.runtime.cli.compare import Compared, measured
from sardonyx.runtime.manifest import CHAT_TEMPLATE_NAME, MODEL_NAME, TOKENIZER_NAME, WEIGHTS_NAME
from sardonyx.runtime.neighbours import locate, read

TO_HUGGING_FACE = """
import sys, torch, transformers
source, folder = sys.argv[1:]
place, file = source.rsplit("/", 1)
as_float = transformers.AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32)
as_float.save_pretrained(folder)
transformers.AutoTokenizer.from_pretrained(place, gguf_file=file).save_pretrained(folder)
"""

AS_TRANSFORMERS_JS = """
import shutil, sys
from pathlib import Path
import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
traced, folder = map(Path, sys.argv[1:])
(folder / "onnx").mkdir(parents=True)
for file in traced.glob("*.json"):
    shutil.copy(file, folder)
model = onnx.load(traced / "model.onnx")
four = MatMulNBitsQuantizer(model, block_size=32, is_symmetric=True, accuracy_level=4)
four.process()
place = folder / "onnx" / "model_q4.onnx"
onnx.save(four.model.model, place, save_as_external_data=True, location="model_q4.onnx_data")
eight = folder / "onnx" / "model_quantized.onnx"
quantize_dynamic(traced / "model.onnx", eight, weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"])
"""
"""What that project's scripts/quantize.py did for q4 and q8 until version 3.8, from optimum's trace."""

OWN = ("q8", "int8", "int4", "int4-small", "gguf")


def made(work: Path, source: Path, genai: str, optimum: str) -> Iterator[tuple[str, str]]:
    """What it is called, and where it is, as a word that `sardonyx` takes."""
    for recipe in OWN:
        make(work / recipe, lambda folder, recipe=recipe: export(source, folder, recipe=recipe))
        yield f"sardonyx {recipe}", str(work / recipe)
    plain, traced = work / "float32", work / "traced"
    make(plain, lambda folder: run(optimum, "-c", TO_HUGGING_FACE, str(source.resolve()), str(folder)))
    same_tokens(work, plain)
    builder = ("-m", "onnxruntime_genai.models.builder", "-p", "int4", "-e", "cpu")
    make(work / "genai", lambda folder: run(genai, *builder, "-i", str(plain), "-o", str(folder)))
    yield "onnxruntime-genai int4", str(work / "genai")
    cli = str(Path(optimum).with_name("optimum-cli"))
    task = ("--task", "text-generation-with-past")
    make(traced, lambda folder: run(cli, "export", "onnx", "--model", str(plain), *task, str(folder)))
    make(work / "js", lambda folder: run(optimum, "-c", AS_TRANSFORMERS_JS, str(traced), str(folder)))
    yield "transformers.js q4", f"{work / 'js'}:q4"
    yield "transformers.js q8", f"{work / 'js'}:q8"


def make(folder: Path, how: Callable[[Path], object]) -> None:
    """The folder appears when all of it is there."""
    if not folder.exists():
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        how(unfinished)
        unfinished.rename(folder)


def run(*command: str) -> None:
    subprocess.run(command, check=True)


def same_tokens(work: Path, folder: Path) -> None:
    """transformers takes this tokenizer for one that begins each text with a token of its own."""
    for name in (TOKENIZER_NAME, CHAT_TEMPLATE_NAME):
        shutil.copy(work / "fp32" / name, folder)
    settings = folder / "tokenizer_config.json"
    settings.write_text(
        json.dumps({**json.loads(settings.read_text("utf-8")), "add_bos_token": False}), "utf-8"
    )


def quality(work: Path, name: str, graph: Path) -> Certificate:
    """As certified, or measured now and kept."""
    if certificate := stored_certificate(graph):
        return certificate
    kept = work / f"{name}.json"
    if not kept.exists():
        same_tokens(work, work / graph.relative_to(work).parts[0])
        certificate, _ = check(graph, work / "fp32", Scope())
        kept.write_bytes(msgspec.json.encode(certificate))
    return msgspec.json.decode(kept.read_bytes(), type=Certificate)


def size(graph: Path) -> int:
    """Bytes of graph and weights, whatever lies beside them."""
    neighbour = read(graph)
    files = [graph / MODEL_NAME, graph / WEIGHTS_NAME] if neighbour is None else neighbour.files
    return sum(file.stat().st_size for file in files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--genai", required=True, metavar="PYTHON")
    parser.add_argument("--optimum", required=True, metavar="PYTHON")
    parser.add_argument("--plot", type=Path, metavar="FILE")
    given = parser.parse_args()
    given.work.mkdir(exist_ok=True)
    make(given.work / "fp32", lambda folder: export(given.source, folder, recipe="fp32"))
    names, graphs, certificates = [], [], []
    for name, word in made(given.work, given.source, given.genai, given.optimum):
        graph = locate(word) or Path(word)
        certificates.append(quality(given.work, name, graph))
        names.append(name)
        graphs.append(graph)
    texts = {certificate.texts_sha256 for certificate in certificates}
    assert len(texts) == 1, "they were measured on different tokens"
    speeds = measured(graphs, prompt_tokens=256, new_tokens=32, repeats=3)
    rows = []
    for name, graph, certificate, own in zip(names, graphs, certificates, speeds, strict=True):
        best = (max(turn.prefill_tokens_per_s for turn in own), max(turn.decode_tokens_per_s for turn in own))
        rows.append(Compared(name, certificate.recipe, size(graph), certificate.overall, *best))
    (given.work / "figures.json").write_text(json.dumps(msgspec.to_builtins(rows), indent=2))
    print("| | MB | mean KL | p99 | top-1 | perplexity | decode |\n|---|---|---|---|---|---|---|")
    for row in sorted(rows, key=lambda row: row.quality.kl_mean):
        print(line(row))
    if given.plot:
        picture.draw(rows, given.plot)


def line(row: Compared) -> str:
    found = row.quality
    return (
        f"| {row.name} | {row.bytes / 1e6:.1f} | {found.kl_mean:.4f} | {found.kl_p99:.2f} | {found.top1:.1%} "
        f"| x{found.perplexity_ratio:.3f} | {row.decode_tokens_per_s:.0f} |"
    )


if __name__ == "__main__":
    main()
