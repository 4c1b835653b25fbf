"""Adapters on a bfloat16 base: under autocast their inputs stay in bfloat16, and every number is what peft computes."""

import math
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from tiny_models import IDS, logits, tiny_model, trainable
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tad_ext.models import add_lora, base_model


class Casts(TorchDispatchMode):
    """Counts casts of hidden states to float32."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        made = function(*arguments, **(options or {}))
        if function is torch.ops.aten._to_copy.default and made.dtype == torch.float32:
            self.count += arguments[0].dtype == torch.bfloat16 and math.prod(made.shape[:-1]) == IDS.numel()
        return made


def adapted_model(*, as_peft: bool = False, **options: Any) -> PeftModel:
    adapted = add_lora(tiny_model().bfloat16(), rank=4, alpha=8.0, **options)
    torch.manual_seed(3)
    for parameter in trainable(adapted).values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    for module in adapted.modules():
        if as_peft and isinstance(module, BaseTunerLayer):
            vars(module).pop("_cast_input_dtype", None)
    return adapted.train()


def step(model: PeftModel) -> tuple[Tensor, dict[str, Tensor], int]:
    """Hidden states, gradients and casts of the adapters' inputs, as the trainer has them."""
    torch.manual_seed(4)
    with Casts() as casts, torch.autocast("cpu", torch.bfloat16):
        hidden = base_model(model).hidden_rows(IDS)
        hidden.float().square().mean().backward()
    return hidden, {name: weight.grad for name, weight in trainable(model).items()}, casts.count


def test_under_autocast_inputs_are_not_cast_and_no_bit_changes() -> None:
    (hidden, gradients, casts), (wanted, expected, cast_by_peft) = (
        step(adapted_model()),
        step(adapted_model(as_peft=True)),
    )
    assert torch.equal(hidden, wanted)
    assert gradients.keys() == expected.keys()
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients.items())
    # One for each adapted layer, and for its gradient, which three of the first block's inputs do not have.
    assert cast_by_peft - casts == 14 + 11


def test_dropout_drops_the_same_features() -> None:
    """On a CPU it scales the others by 1 / (1 - p) rounded to bfloat16; a GPU's kernels have it in float32."""
    hidden, _, _ = step(adapted_model(dropout=0.05))
    wanted, _, _ = step(adapted_model(dropout=0.05, as_peft=True))
    torch.testing.assert_close(hidden, wanted, rtol=0.05, atol=0.05)


def test_without_autocast_inputs_are_cast_as_ever() -> None:
    assert torch.equal(logits(adapted_model().eval()), logits(adapted_model(as_peft=True).eval()))


@pytest.mark.parametrize("use_rslora", [False, True])
def test_dora_takes_lengths_of_rows_in_float32(use_rslora: bool) -> None:
    options = {"use_dora": True, "use_rslora": use_rslora}
    (hidden, gradients, casts), (wanted, expected, same) = (
        step(adapted_model(**options, as_peft=as_peft)) for as_peft in (False, True)
    )
    assert torch.equal(hidden, wanted)
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients.items())
    assert casts == same > 0
