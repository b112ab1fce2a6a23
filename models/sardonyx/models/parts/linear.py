"""The linear layer under Hugging Face's names."""

from sardonyx.models.graph import Linear, Weight


def linear(name: str, outputs: int, inputs: int, *, bias: bool = False) -> Linear:
    """`NAME.weight` of shape `[outputs, inputs]` and, if it has one, `NAME.bias`."""
    return Linear(
        Weight(f"{name}.weight", (outputs, inputs)),
        Weight(f"{name}.bias", (outputs,)) if bias else None,
    )
