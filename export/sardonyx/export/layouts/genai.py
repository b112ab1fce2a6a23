"""onnxruntime-genai's layout: `genai_config.json` beside the graph. Past and present share their memory."""

from typing import Any

from sardonyx.export.layouts import Model
from sardonyx.export.layouts.files import write_graph, write_json, write_tokenizer
from sardonyx.runtime.manifest import MODEL_NAME, WEIGHTS_NAME
from sardonyx.runtime.neighbours.genai import SETTINGS

KIND = "decoder"
"""What it calls a decoder of text of no particular family: all that is particular is in the graph."""

TOKENIZER = "TokenizersBackend"
"""Its reader of any tokenizer.json."""

SEARCH = ("temperature", "top_k", "top_p", "repetition_penalty", "no_repeat_ngram_size", "do_sample")
"""Settings of a generation config that it knows."""


def write(model: Model) -> None:
    """Raises OSError."""
    write_graph(model.artifact, model.folder / MODEL_NAME, WEIGHTS_NAME)
    write_tokenizer(model.artifact, model.folder, model.manifest, TOKENIZER)
    write_json(model.folder / SETTINGS, _settings(model))


def _settings(model: Model) -> dict[str, Any]:
    manifest = model.manifest
    kv_heads, width = manifest.states[0].shape
    ends = manifest.tokens.eos
    search = {name: manifest.generation[name] for name in SEARCH if manifest.generation.get(name) is not None}
    return {
        "model": {
            "type": KIND,
            "context_length": manifest.context_length,
            "vocab_size": manifest.vocab_size,
            "bos_token_id": ends[0] if manifest.tokens.bos is None else manifest.tokens.bos,
            "eos_token_id": ends,
            "pad_token_id": ends[0],
            "decoder": {
                "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
                "filename": MODEL_NAME,
                "head_size": width,
                "hidden_size": model.hidden,
                "num_attention_heads": model.heads,
                "num_key_value_heads": kv_heads,
                "num_hidden_layers": len(manifest.states) // 2,
                "inputs": {
                    "input_ids": "input_ids",
                    "attention_mask": "attention_mask",
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {
            "do_sample": False,
            "min_length": 0,
            "max_length": manifest.context_length,
            "num_beams": 1,
            "num_return_sequences": 1,
            "past_present_share_buffer": True,
            **search,
        },
    }
