"""`export --adapter`, `--adapters` and `run --adapter`: merged and switched give the same answers."""

from pathlib import Path

from adapter_files import low_rank, save_adapter
from command_line import Call
from random_models import random_checkpoint, save_folder
from sardonyx.models import architectures


def test_adapters_on_the_command_line(call: Call, tmp_path: Path) -> None:
    base = random_checkpoint(architectures()["llama"].EXAMPLE)
    source = str(save_folder(base, tmp_path / "base"))
    one = str(save_adapter(tmp_path / "one", low_rank(base, ["model.layers.0.self_attn.v_proj"])))
    two = str(save_adapter(tmp_path / "two", low_rank(base, ["model.layers.1.mlp.down_proj"])))
    out = str(tmp_path / "out")
    call("export", source, "-o", out, "--recipe", "fp32", "--no-verify", "--adapters", one, "--adapters", two)
    assert "adapter" in call("inspect", out).out
    greedy = ("--raw", "--temperature", "0", "--max-tokens", "8")
    answers = [
        call("run", out, "abc", *greedy, *chosen).out
        for chosen in ((), ("--adapter", "one"), ("--adapter", "two"))
    ]
    assert len(set(answers)) == 3
    refused = call("run", out, "abc", "--adapter", "three")
    assert refused.code == 2
    assert "no adapter 'three'" in refused.err
    whole = call("export", source, "-o", f"{out}2", "--recipe", "fp32", "--no-verify", "--adapter", one)
    assert whole.code == 0
    assert call("run", f"{out}2", "abc", *greedy).out == answers[1]
