"""docs/models.md says which architectures are described, and what proves each: the tests' own lists.

After a change of either: `python tests/test_models_doc.py`.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import gguf_models
from sardonyx.models import architectures
from variants import VARIANTS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "models.md"

HEAD = """# Models

Written by `tests/test_models_doc.py` from what the tests find. Every architecture is one file of
`models/sardonyx/models/`; a checkpoint is one of them if its config.json says so in `model_type`.

The ladder (ARCHITECTURE.md, section 6): on the architecture's EXAMPLE, **L1** it builds, **L2** the ONNX
checker passes it, **L3** onnxruntime gives the numbers of a numpy reference, however tokens are cut into
steps and batches. **L4**: with random weights, logits are within 1e-4 of those of transformers, for the
EXAMPLE and so many variants (named below), each fed in four ways. **GGUF**: the name of the architecture in
llama.cpp's files; a file written from random weights gives the same artifact to the byte, and where it says
L4, the same logits as transformers' own reading of the file. llama.cpp calls Mistral `llama` too, and its
files leave Mistral's window out.

"""

NOTES = """
## What to know

- **LongRoPE** (Phi-3) has two sets of frequencies, for short and for long texts. A cache holds keys that have
  been turned already, so one artifact has one set: the long one if its context is longer than the context
  the model was first trained for, else the short one. `--context` chooses. transformers chooses by the length
  of each text; llama.cpp and vLLM by the context, as here.
- **Heads** whose width is no multiple of 16, or whose rotated pairs are no multiple of 8, are padded for the
  attention kernel: a few more small nodes for each layer, and a cache as wide as the padded heads.
- **Experts** of a layer are one node, which reads only those that a token chose. The recipes store them in
  blocks of 4 or 8 bits and leave routers alone; what they cannot store (widths of no whole blocks of 32, the
  recipe `gguf`) is refused, and the way out is named. As floats, all tokens of an expert are multiplied at
  once: company may change the last bits of a row's logits. As blocks it changes none.
- **Short convolutions** (LFM2) keep of a row the last inputs only, and 32 more, so that guesses can be taken
  back. A row that is set back further computes its text once more; beginnings of prompts are not reused.
- **Windows** are masks: keys that no query can see any more stay in the cache.
- A config that asks for what is not described (an unknown rotary scaling, an unknown activation, ALiBi) is
  refused, and the field is named.
"""


def table() -> Iterator[str]:
    yield "| model_type | what it is | L1-L3 | L4 variants | GGUF |\n"
    yield "|---|---|---|---|---|\n"
    for model_type, module in architectures().items():
        what = (module.__doc__ or "").strip().rstrip(".").replace("|", "\\|")
        variants = 1 + len(VARIANTS.get(model_type, {}))
        yield f"| `{model_type}` | {what} | yes | {variants} | {_gguf(model_type)} |\n"


def _gguf(model_type: str) -> str:
    if model_type not in gguf_models.ARCHITECTURES:
        return ""
    name, _ = gguf_models.ARCHITECTURES[model_type]
    return f"`{name}`, L4" if model_type in _read_by_transformers() else f"`{name}`"


def _read_by_transformers() -> set[str]:
    """From the parity tests, which cannot be imported without their marker's environment."""
    return set(ast.literal_eval(_stated("test_gguf_parity.py", "READ_BY_TRANSFORMERS")))


def _stated(module: str, name: str) -> ast.expr:
    """What a parity test sets a name to."""
    for node in ast.parse((ROOT / "tests" / "parity" / module).read_text("utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == name:
            value = node.value  # type: ignore[attr-defined]
            assert isinstance(value, ast.expr)
            return value
    raise AssertionError(f"{name} has another name now")


def variants() -> Iterator[str]:
    yield "\n## Variants\n\n"
    for model_type in architectures():
        names = "; ".join(VARIANTS.get(model_type, {}))
        yield f"- `{model_type}`: {names}\n"


def adapters() -> Iterator[str]:
    yield "\n## Adapters\n\nLogits within 1e-4 of those of peft, merged into the weights"
    yield " and, where it says so, switched: two of them\nand none side by side in one batch.\n\n"
    switched = ast.literal_eval(_stated("test_adapter_parity.py", "SWITCHED"))
    cases = _stated("test_adapter_parity.py", "CASES")
    assert isinstance(cases, ast.Dict)
    for key, case in zip(cases.keys, cases.values, strict=True):
        assert isinstance(key, ast.Constant)
        assert isinstance(case, ast.Tuple)
        architecture = ast.literal_eval(case.elts[0])
        yield f"- `{architecture}`: {key.value}{', switched' if key.value in switched else ''}\n"


def page() -> str:
    return HEAD + "".join(table()) + NOTES + "".join(variants()) + "".join(adapters())


def test_the_page_says_what_the_tests_prove() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python tests/test_models_doc.py"


def test_every_architecture_is_compared_in_more_than_one_variant() -> None:
    assert architectures().keys() == VARIANTS.keys()


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), "utf-8")
