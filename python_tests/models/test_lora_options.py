"""DoRA and rsLoRA by their formulas, and the layers that are adapted where none are named."""

from pathlib import Path
from typing import Any

import pytest
import torch
from every_family import every_family, write
from peft import PeftModel
from tiny_models import IDS, logits, tiny_model, trainable
from torch import Tensor, nn

from tad_ext.models import (
    add_lora,
    base_model,
    load_adapter,
    load_model,
    load_tokenizer,
    merge_adapter,
    save_adapter,
    teacher,
)
from tad_ext.models.loading import save_model
from tad_ext.models.lora import load_merged

VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "both": {"use_dora": True, "use_rslora": True},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def adapted_model(model: nn.Module, variant: str, **options: Any) -> PeftModel:
    adapted = add_lora(model, **{"rank": 4, "alpha": 6.0, **VARIANTS[variant], **options})
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for parameter in trainable(adapted).values():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return adapted


def by_formula(adapted: PeftModel, base: nn.Module, variant: str) -> dict[str, Tensor]:
    """The weights of a plain model that is the adapted one, float64."""
    weights = {name: weight.double() for name, weight in base.state_dict().items()}
    own = {name.removeprefix("base_model.model."): weight.double() for name, weight in adapted.state_dict().items()}
    scale = {"lora": 6 / 4, "rslora": 6 / 2, "dora": 6 / 4, "both": 6 / 2}[variant]
    for name in own:
        if ".lora_A." in name:
            layer = name.partition(".lora_")[0]
            a, b = own[f"{layer}.lora_A.default.weight"], own[f"{layer}.lora_B.default.weight"]
            weight = weights[layer + ".weight"] + scale * b @ a
            if variant in ("dora", "both"):
                length = weight.square().sum(dim=1, keepdim=True).sqrt()
                weight = own[f"{layer}.lora_magnitude_vector.default.weight"][:, None] * weight / length
            weights[layer + ".weight"] = weight
    return weights


@torch.no_grad()
def outputs(model: nn.Module) -> Tensor:
    return base_model(model)(IDS % 4).logits


@every_variant
@every_family
def test_the_formula_the_teacher_and_the_way_through_files(tmp_path: Path, family: str, variant: str) -> None:
    folder = write(family, tmp_path / "base")
    base = load_model(folder)
    adapted = adapted_model(load_model(folder), variant)
    plain = load_model(folder, dtype="float64")
    plain.load_state_dict(by_formula(adapted, base, variant))
    wanted = outputs(plain)
    assert (wanted - outputs(base)).abs().max() > 0.1
    torch.testing.assert_close(outputs(adapted).double(), wanted, rtol=1e-4, atol=1e-4)
    with teacher(adapted):
        assert torch.equal(outputs(adapted), outputs(base))

    save_adapter(adapted, tmp_path / "adapter")
    for trains in (False, True):
        loaded = load_adapter(load_model(folder), tmp_path / "adapter", trainable=trains)
        assert trainable(loaded).keys() == (trainable(adapted).keys() if trains else set())
        assert torch.equal(outputs(loaded), outputs(adapted))
    merged = load_merged(folder, tmp_path / "adapter")
    torch.testing.assert_close(outputs(merged).double(), wanted, rtol=1e-4, atol=1e-4)
    save_model(merged, load_tokenizer(folder), tmp_path / "merged")  # type: ignore[arg-type]
    assert torch.equal(outputs(load_model(tmp_path / "merged")), outputs(merged))


@every_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_adapter_and_the_teacher_are_the_base_bit_for_bit(dtype: torch.dtype, variant: str) -> None:
    model = tiny_model(attention_dropout=0.5).to(dtype)
    base = logits(model)
    fresh = add_lora(model, rank=4, alpha=6.0, dropout=0.5, **VARIANTS[variant])
    assert torch.equal(logits(fresh), base)
    assert {weight.dtype for weight in trainable(fresh).values()} == {torch.float32}
    changed = adapted_model(merge_adapter(fresh), variant, dropout=0.5).train()
    assert not torch.equal(logits(changed), base)
    with teacher(changed):
        assert torch.equal(logits(changed), base)


@every_family
def test_by_default_all_linear_layers_of_every_block_are_adapted(tmp_path: Path, family: str) -> None:
    model = load_model(write(family, tmp_path / "base"))
    blocks = len(model.model.layers)
    linear = {
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not model.lm_head
    }
    adapted = add_lora(model, rank=2, alpha=2.0)
    found = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in trainable(adapted)}
    assert found == linear
    assert len(found) == {"llada_moe": 4}.get(family, 7) * blocks


def test_merging_dora_into_a_fresh_copy_is_exact_enough_in_bfloat16() -> None:
    """As exact as rounding the formula's weights to bfloat16, which is one rounding of each."""
    adapted = adapted_model(tiny_model().bfloat16(), "dora")
    expected = by_formula(adapted, tiny_model().bfloat16(), "dora")
    merged = merge_adapter(adapted)
    for name, weight in merged.state_dict().items():
        assert weight.dtype == torch.bfloat16
        torch.testing.assert_close(weight.double(), expected[name], rtol=2**-8, atol=1e-6)
