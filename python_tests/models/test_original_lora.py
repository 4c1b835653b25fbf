"""LoRA on LLaDA and Dream: all seven projections, merged and saved under original names; adapters made elsewhere."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_checkpoints import TinyCheckpoint, write_dream, write_llada
from torch import Tensor, nn
from transformer_formula import llada_logits

from tad_ext.models import add_lora, base_model, load_model, load_tokenizer
from tad_ext.models.loading import save_model
from tad_ext.models.lora import load_adapter, merge_adapter, restore_adapter, save_adapter, teacher

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> TinyCheckpoint:
    return write_llada(tmp_path / "llada")


def random_ids(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 400, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")
@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_all_seven_projections(tmp_path: Path, write: Any) -> None:
    written = write(tmp_path / "base")
    ids, positions = random_ids(2, 12), torch.tensor([0, 3, 14, 20])
    model = add_lora(load_model(written.folder), rank=4, alpha=8.0, target_modules=ALL_LINEAR)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            base_model(model).gradient_checkpointing_enable()
        base_model(model.train())(ids, positions=positions).logits.square().sum().backward()
        gradients.append([weight.grad for weight in model.parameters() if weight.requires_grad])
        model.zero_grad()
    assert len(gradients[0]) == 2 * 7 * 2
    assert all(torch.allclose(plain, again) for plain, again in zip(*gradients, strict=True))
    with torch.no_grad():
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        for weight, gradient in zip(trained, gradients[0], strict=True):
            if gradient.abs().sum() > 0:  # A starts without a gradient, B never
                weight.copy_(gradient / gradient.norm())
        assert sum(bool(gradient.abs().sum() > 0) for gradient in gradients[0]) == 2 * 7
        adapted = base_model(model.eval())(ids).logits
        with teacher(model):
            assert torch.equal(base_model(model)(ids).logits, load_model(written.folder)(ids).logits)
    save_adapter(model, tmp_path / "adapter")

    with torch.no_grad():
        loaded = load_adapter(load_model(written.folder), tmp_path / "adapter")
        assert torch.equal(base_model(loaded)(ids).logits, adapted)
        merged: Any = merge_adapter(loaded)
        save_model(merged, load_tokenizer(written.folder), tmp_path / "merged")
        assert load_file(tmp_path / "merged" / "model.safetensors").keys() == written.weights.keys()
        torch.testing.assert_close(load_model(tmp_path / "merged")(ids).logits, adapted, rtol=1e-4, atol=1e-4)
        assert (adapted - load_model(written.folder)(ids).logits).abs().max() > 0.1


def original_adapter(checkpoint: TinyCheckpoint, folder: Path, targets: list[str], **options: Any) -> dict[str, Tensor]:
    """Writes an adapter as peft does for the original code: only layers whose original name is a target."""
    generator, weights = torch.Generator().manual_seed(7), {}
    for name, weight in checkpoint.weights.items():
        layer = name.removesuffix(".weight")
        if layer.rpartition(".")[2] in targets:
            shapes = {"A": (4, weight.shape[1]), "B": (weight.shape[0], 4)}
            for part, shape in shapes.items():
                key = f"base_model.model.{layer}.lora_{part}.weight"
                weights[key] = torch.randn(shape, generator=generator) * 0.1
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": targets, **options}
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(weights, folder / "adapter_model.safetensors")
    return weights


@torch.no_grad()
@pytest.mark.parametrize(
    "targets",
    [
        ["q_proj", "k_proj", "v_proj", "attn_out", "ff_proj", "up_proj"],
        ALL_LINEAR,  # the usual names, of which the original has four: the adapter holds those four
    ],
)
def test_an_adapter_for_the_original_names_is_translated(
    checkpoint: TinyCheckpoint, tmp_path: Path, targets: list[str]
) -> None:
    adapter = original_adapter(checkpoint, tmp_path / "adapter", targets)
    ids = random_ids(20)
    loaded = load_adapter(load_model(checkpoint.folder), tmp_path / "adapter")
    weights = dict(checkpoint.weights)
    for key in adapter:
        if ".lora_A." in key:
            layer = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            update = adapter[key.replace("lora_A", "lora_B")] @ adapter[key] * 2  # alpha / rank
            weights[layer + ".weight"] = weights[layer + ".weight"] + update
    wanted = llada_logits(weights, checkpoint.config, ids, dtype=torch.float64, rotation=torch.float64)
    found = base_model(loaded)(ids[None]).logits[0]
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (["q_proj", "ff_out"], {}, "match lm_head; neither the output head nor"),  # the head is an ff_out, too
        (["q_proj"], {"alpha_pattern": {"q_proj": 3}}, r"has original layer names and alpha_pattern \{'q_proj': 3\}"),
    ],
)
def test_an_adapter_that_cannot_be_translated_is_refused(
    checkpoint: TinyCheckpoint, tmp_path: Path, targets: list[str], options: dict[str, Any], message: str
) -> None:
    original_adapter(checkpoint, tmp_path / "adapter", targets, **options)
    with pytest.raises(ValueError, match=message):
        load_adapter(load_model(checkpoint.folder), tmp_path / "adapter")


def test_original_target_names_are_refused_with_those_that_exist(checkpoint: TinyCheckpoint) -> None:
    with pytest.raises(ValueError, match=r"\['attn_out', 'ff_out'\] match no linear module .* among: down_proj \(2x\)"):
        add_lora(load_model(checkpoint.folder), rank=4, alpha=8.0, target_modules=["q_proj", "attn_out", "ff_out"])


def module_tree(weights: dict[str, Tensor]) -> nn.Module:
    """The authors' modules, as far as peft sees them: linear layers at the places that the weights' names say."""
    root = nn.Module()
    for name, weight in weights.items():
        *places, layer, kind = name.split(".")
        parent = root
        for place in places:
            if not hasattr(parent, place):
                parent.add_module(place, nn.Module())
            parent = parent.get_submodule(place)
        if kind == "weight" and weight.dim() == 2 and layer not in ("wte", "embed_tokens"):
            linear = nn.Linear(*reversed(weight.shape), bias=False)
            linear.weight.data = weight.clone()
            parent.add_module(layer, linear)
    return root


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft's own call below
@pytest.mark.parametrize("options", [{}, {"use_dora": True, "use_rslora": True}], ids=str)
@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_peft_alone_loads_an_adapter_onto_the_authors_modules(
    tmp_path: Path, write: Any, options: dict[str, Any]
) -> None:
    written = write(tmp_path / "base")
    adapted = add_lora(load_model(written.folder), rank=4, alpha=8.0, **options)
    with torch.no_grad():
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.1
    save_adapter(adapted, tmp_path / "adapter")
    tree = PeftModel.from_pretrained(module_tree(written.weights), str(tmp_path / "adapter"))
    found = tree.merge_and_unload().state_dict()
    save_model(merge_adapter(adapted), load_tokenizer(written.folder), tmp_path / "merged")  # type: ignore[arg-type]
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    changed = {name for name, weight in written.weights.items() if not torch.equal(weight, merged[name])}
    assert len(changed) == 7 * 2
    torch.testing.assert_close(found, {name: merged[name] for name in found}, rtol=1e-6, atol=1e-6)
    assert changed < found.keys()

    # Loaded, saved, and loaded again, it has these names still; the weights go into an adapter of the same layers.
    again = load_adapter(load_model(written.folder), tmp_path / "adapter")
    save_adapter(again, tmp_path / "again")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "adapter" / name).read_bytes()
    fresh = add_lora(load_model(written.folder), rank=4, alpha=8.0, **options)
    restore_adapter(fresh, tmp_path / "adapter")
    ids = random_ids(2, 12)
    assert torch.equal(base_model(fresh)(ids).logits, base_model(again)(ids).logits)
    assert all(weight.requires_grad for name, weight in fresh.named_parameters() if ".lora_" in name)
    other = add_lora(load_model(written.folder), rank=4, alpha=8.0, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="does not fit the model; unexpected weights: "):
        restore_adapter(other, tmp_path / "adapter")


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft's own call below
def test_an_adapter_with_ranks_of_single_layers_keeps_the_names_of_ours(
    checkpoint: TinyCheckpoint, tmp_path: Path
) -> None:
    pattern = {"layers.1.self_attn.q_proj": 2}
    made = get_peft_model(
        load_model(checkpoint.folder), LoraConfig(r=4, target_modules=["q_proj"], rank_pattern=pattern)
    )
    save_adapter(made, tmp_path / "adapter")
    assert all(".self_attn.q_proj." in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    load_adapter(load_model(checkpoint.folder), tmp_path / "adapter")
