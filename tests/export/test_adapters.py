"""Adapters: what they add, and whatever does not fit or is not understood is refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapter_files import PREFIX, low_rank, merged, save_adapter
from random_models import UNMEASURED, ArrayCheckpoint, random_checkpoint, save_folder
from sardonyx.export.adapters.merged import MergedCheckpoint
from sardonyx.export.adapters.peft import read_adapter
from sardonyx.export.api import Options, export
from sardonyx.models import architectures
from sardonyx.runtime.errors import SourceError

QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"


def model(**changes: Any) -> ArrayCheckpoint:
    return random_checkpoint({**architectures()["llama"].EXAMPLE, **changes})


def read(folder: Path, base: ArrayCheckpoint, arrays: Any, **config: Any) -> MergedCheckpoint:
    return MergedCheckpoint(base, read_adapter(save_adapter(folder / "polite", arrays, **config), base))


def rows(checkpoint: Any, name: str) -> Any:
    tensor = checkpoint.tensor(name)
    return tensor.rows(0, tensor.shape[0])


def refusal(reading: Callable[[], Any]) -> str:
    with pytest.raises(SourceError) as caught:
        reading()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_read_is_the_sum(tmp_path: Path) -> None:
    base = model()
    arrays = low_rank(base, [QUERY, DOWN])
    found, expected = read(tmp_path, base, arrays), merged(base, arrays)
    assert found.names() == base.names()
    for name in base.names():
        np.testing.assert_allclose(rows(found, name), expected.arrays[name], rtol=1e-6, atol=1e-7)
    whole = rows(found, f"{QUERY}.weight")
    np.testing.assert_array_equal(found.tensor(f"{QUERY}.weight").rows(5, 9), whole[5:9])
    assert found.tensor(f"{QUERY}.weight").raw(5, 9).view(np.float32).tolist() == whole[5:9].tolist()


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, 6 / 3**0.5),
        ({"lora_alpha": 1}, 1 / 3),
        ({"alpha_pattern": {"q_proj": 9}}, 3),
        ({"alpha_pattern": {"mlp.q_proj": 9, "roj": 1, r"layers\.\d+\.self_attn\.q_proj": 12}}, 4),
        ({"r": 8, "rank_pattern": {"q_proj": 3}}, 2),
    ],
)
def test_scales(config: dict[str, Any], scale: float, tmp_path: Path) -> None:
    base = model()
    arrays = low_rank(base, [QUERY])
    found = rows(read(tmp_path, base, arrays, **config), f"{QUERY}.weight")
    expected = merged(base, arrays, scale).arrays[f"{QUERY}.weight"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_magnitudes_are_the_lengths_of_rows(tmp_path: Path) -> None:
    base = model()
    lengths = np.random.default_rng(1).uniform(1, 3, 96).astype(np.float32)
    arrays = {**low_rank(base, [QUERY]), f"{PREFIX}{QUERY}.lora_magnitude_vector": lengths}
    found = rows(read(tmp_path, base, arrays, use_dora=True), f"{QUERY}.weight")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), lengths, rtol=1e-6)
    direction = merged(base, arrays).arrays[f"{QUERY}.weight"]
    np.testing.assert_allclose(
        found / lengths[:, None] * np.linalg.norm(direction, axis=1)[:, None], direction, rtol=1e-5
    )


@pytest.mark.parametrize("saved", [HEAD, TABLE])
def test_a_tied_model_comes_apart_where_one_side_is_trained(saved: str, tmp_path: Path) -> None:
    base = model(tie_word_embeddings=True)
    other = np.random.default_rng(3).standard_normal(base.arrays[TABLE].shape).astype(np.float32)
    found = read(tmp_path, base, {PREFIX + saved: other})
    assert found.config["tie_word_embeddings"] is False
    assert found.names() == base.names() | {HEAD}
    for name in (HEAD, TABLE):
        np.testing.assert_array_equal(rows(found, name), other if name == saved else base.arrays[TABLE])


def test_a_merged_model_is_exported_as_the_sum_would_be(tmp_path: Path) -> None:
    base = model()
    arrays = low_rank(base, [QUERY, DOWN])
    source = save_folder(base, tmp_path / "base")
    adapter = save_adapter(tmp_path / "polite", arrays)
    options = Options(verify=False, calibrate=False, adapter=adapter)
    manifest = export(source, tmp_path / "a", recipe="int4", options=options)
    plain = export(
        save_folder(merged(base, arrays), tmp_path / "sum"), tmp_path / "b", recipe="int4", options=UNMEASURED
    )
    assert manifest.name == "base+polite"
    assert manifest.source.sha256 != plain.source.sha256
    assert manifest.files["model.onnx"] == plain.files["model.onnx"]
    a, b = ((tmp_path / place / "model.onnx.data").read_bytes() for place in "ab")
    differing = (np.frombuffer(a, np.uint8) != np.frombuffer(b, np.uint8)).mean()
    assert differing < 1e-3  # a sum's last bit may turn a code


def test_an_adapter_of_another_model_is_refused_with_all_that_differs(tmp_path: Path) -> None:
    other = random_checkpoint({**architectures()["llama"].EXAMPLE, "hidden_size": 96, "num_hidden_layers": 3})
    modules = [QUERY, DOWN, "model.layers.2.self_attn.v_proj"]
    adapter = save_adapter(tmp_path / "polite", low_rank(other, modules))
    message = refusal(lambda: export(model(), tmp_path / "out", options=Options(adapter=adapter)))
    assert "is not an adapter of random (3 differences)" in message
    assert f"{QUERY}.weight is for [96, 96], here it is [96, 48]" in message
    assert f"{DOWN}.weight is for [96, 80], here it is [48, 80]" in message
    assert "there is no model.layers.2.self_attn.v_proj.weight" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; LORA can be read"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', which changes the base model too"),
        ({"use_qalora": True}, "use_qalora is True; not supported"),
        ({"lora_bias": True}, "lora_bias is True; not supported"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters is"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is"),
        ({"something_new": 1}, "something_new is 1; not supported"),
        ({"r": 4}, "q_proj has rank 3, but r and rank_pattern say 4"),
        ({"r": 0}, "r is 0, expected a positive whole number"),
        ({"lora_alpha": "much"}, "lora_alpha is 'much', expected a positive number"),
        ({"use_rslora": 1}, "use_rslora is 1, expected true or false"),
    ],
)
def test_what_is_not_understood_of_a_config_is_refused(
    config: dict[str, Any], words: str, tmp_path: Path
) -> None:
    base = model()
    message = refusal(lambda: read(tmp_path, base, low_rank(base, [QUERY]), **config))
    assert words in message
    assert str(tmp_path / "polite" / "adapter_config.json") in message


def test_tensors_that_are_not_understood_are_refused(tmp_path: Path) -> None:
    base = model()
    arrays = low_rank(base, [QUERY])
    strange = {f"{PREFIX}{QUERY}.lora_B.bias": np.ones(96, np.float32), "q.ia3_l": np.ones(3, np.float32)}
    message = refusal(lambda: read(tmp_path, base, {**arrays, **strange}))
    assert f"not understood: {PREFIX}{QUERY}.lora_B.bias, q.ia3_l" in message


@pytest.mark.parametrize(("left_out", "words"), [("lora_A", "has b only"), ("lora_B", "has a only")])
def test_half_an_adapter_is_refused(left_out: str, words: str, tmp_path: Path) -> None:
    base = model()
    arrays = {name: array for name, array in low_rank(base, [QUERY]).items() if left_out not in name}
    assert words in refusal(lambda: read(tmp_path, base, arrays))


def test_matrices_of_two_ranks_are_refused(tmp_path: Path) -> None:
    base = model()
    arrays = low_rank(base, [QUERY])
    arrays[f"{PREFIX}{QUERY}.lora_B.weight"] = np.ones((96, 2), np.float32)
    assert "no two matrices of one rank" in refusal(lambda: read(tmp_path, base, arrays))


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_that_is_no_adapter_is_refused(name: str, tmp_path: Path) -> None:
    base = model()
    folder = save_adapter(tmp_path / "polite", low_rank(base, [QUERY]))
    (folder / name).unlink()
    assert f"{folder / name}: missing" in refusal(lambda: read_adapter(folder, base))
    assert "missing" in refusal(lambda: read_adapter(tmp_path / "nowhere", base))


def test_no_tensors_are_no_adapter(tmp_path: Path) -> None:
    assert "holds no tensors" in refusal(lambda: read(tmp_path, model(), {}))
