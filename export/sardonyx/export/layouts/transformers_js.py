"""transformers.js' layout: `onnx/model_q4.onnx` with its weights in `.onnx_data`, and Hugging Face's
files."""

from sardonyx.export.layouts import Model
from sardonyx.export.layouts.files import write_graph, write_json, write_tokenizer
from sardonyx.runtime.errors import RequestError
from sardonyx.runtime.neighbours.transformers_js import STEM, SUFFIXES

DTYPES = {"fp32": "fp32", "q8": "q8", "int8": "int8", "int4": "q4", "int4-small": "q4"}
"""What it calls weights that a recipe made."""

TOKENIZER = "PreTrainedTokenizer"


def write(model: Model) -> None:
    """Raises RequestError for a recipe that has no name there, or for heads that it would get wrong;
    OSError."""
    manifest, config = model.manifest, model.config
    dtype = DTYPES.get(manifest.recipe)
    if dtype is None:
        raise RequestError(
            f"transformers.js has no dtype for recipe {manifest.recipe}; one of {', '.join(DTYPES)}"
        )
    width = config.get("head_dim") or model.hidden // model.heads
    if manifest.states[0].shape[1] != width:
        raise RequestError(
            f"transformers.js takes heads to be {width} wide, as the config says; the graph's are "
            f"{manifest.states[0].shape[1]}, which the attention kernel needs"
        )
    (model.folder / "onnx").mkdir()
    name = f"{STEM}{SUFFIXES[dtype]}.onnx"
    write_graph(model.artifact, model.folder / "onnx" / name, f"{name}_data")
    write_tokenizer(model.artifact, model.folder, manifest, TOKENIZER)
    ends = {"eos_token_id": manifest.tokens.eos, "bos_token_id": manifest.tokens.bos}
    write_json(model.folder / "generation_config.json", {**manifest.generation, **ends})
    js = {"dtype": dtype, "use_external_data_format": {name: 1}}
    write_json(
        model.folder / "config.json",
        {**config, **ends, "max_position_embeddings": manifest.context_length, "transformers.js_config": js},
    )
