"""LoRA adapters: what is adapted, that the teacher is the base, and what saving, loading and merging keep or refuse."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from tiny_models import IDS, logits, tiny_model, trainable
from torch import nn

from tad_ext.models.lora import add_lora, base_model, load_adapter, merge_adapter, save_adapter, teacher
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM

FILES = ["adapter_config.json", "adapter_model.safetensors", "base_model.json"]
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapted_model(model: TinyDiffusionLM | None = None, *, trained: bool = True, **changes: object) -> PeftModel:
    """A model with an adapter whose B matrices are not zero, as if it had been trained."""
    options = {"rank": 4, "alpha": 8.0, "target_modules": ALL_LINEAR, **changes}
    adapted = add_lora(model or tiny_model(), **options)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if trained and "lora_B" in name:
                nn.init.normal_(parameter, std=0.2)
    return adapted


def test_a_fresh_adapter_changes_nothing_and_is_all_that_trains() -> None:
    model = tiny_model()
    before = logits(model)
    adapted = adapted_model(model, trained=False)
    assert torch.equal(logits(adapted), before)
    assert len(trainable(adapted)) == 2 * len(ALL_LINEAR) * 2  # A and B, two layers
    assert all("lora_" in name for name in trainable(adapted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_adapter_weights_are_float32_whatever_the_base(dtype: torch.dtype) -> None:
    adapted = adapted_model(tiny_model().to(dtype))
    assert {parameter.dtype for parameter in trainable(adapted).values()} == {torch.float32}
    assert logits(adapted).dtype == dtype
    assert logits(adapted).isfinite().all()


def test_the_seed_alone_decides_the_weights() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again = trainable(adapted_model(seed=3)), trainable(adapted_model(seed=3))
    other = trainable(adapted_model(seed=4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first if "lora_A" in name)


def test_each_name_that_matches_nothing_is_refused_with_what_exists() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=r"\['attn_out', 'ff_proj'\] match no linear.*down_proj \(2x\).*q_proj \(2x\)"):
        adapted_model(model, target_modules=["q_proj", "attn_out", "ff_proj"])
    # Neither a norm, nor the end of a longer name, nor an embedding is a linear module of that name.
    for name in ("input_layernorm", "proj", "embed_tokens", "self_attn"):
        with pytest.raises(ValueError, match="match no linear module"):
            adapted_model(model, target_modules=["q_proj", name])
    assert not any(isinstance(module, BaseTunerLayer) for module in model.modules())


def test_full_names_choose_single_layers() -> None:
    adapted = adapted_model(target_modules=["layers.1.self_attn.q_proj"])
    assert len(trainable(adapted)) == 2
    assert all("layers.1.self_attn.q_proj" in name for name in trainable(adapted))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank must be an integer >= 1, got 0"),
        ({"rank": 2.0}, "rank must be an integer"),
        ({"alpha": 0}, "alpha must be a finite number > 0, got 0"),
        ({"alpha": float("nan")}, "alpha must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"target_modules": []}, "target_modules must name at least one"),
        ({"target_modules": ["lm_head"]}, "match lm_head; neither the output head nor"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adapted_model(**changes)


def test_models_that_cannot_be_adapted_are_refused() -> None:
    with pytest.raises(TypeError, match="masked diffusion model"):
        add_lora(nn.Linear(2, 2), rank=1, alpha=1, target_modules=["q_proj"])
    with pytest.raises(TypeError, match="has an adapter already"):
        add_lora(adapted_model(), rank=1, alpha=1, target_modules=["q_proj"])
    for function in (
        merge_adapter,
        lambda model: save_adapter(model, "unused"),
        lambda model: teacher(model).__enter__(),
    ):
        with pytest.raises(TypeError, match="must be a PeftModel"):
            function(tiny_model())  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_teacher_is_the_base_bit_for_bit_even_in_training_mode(dtype: torch.dtype) -> None:
    model = tiny_model(attention_dropout=0.5).to(dtype)
    before = logits(model)
    adapted = adapted_model(model, dropout=0.5)
    assert not torch.equal(logits(adapted), before)
    adapted.train()
    with teacher(adapted):
        inside = base_model(adapted)(IDS).logits
    assert torch.equal(inside, before)
    assert not inside.requires_grad


def test_leaving_the_teacher_restores_everything() -> None:
    adapted = adapted_model()
    adapted.train()
    base_model(adapted).model.layers[0].eval()
    modes = [module.training for module in adapted.modules()]
    names = set(trainable(adapted))
    hidden = base_model(adapted).hidden_rows(IDS)  # a graph that is alive while the teacher runs

    def nested_and_interrupted() -> None:
        with teacher(adapted):
            with teacher(adapted):
                inside = logits(adapted)
            assert torch.equal(logits(adapted), inside)  # the inner one must not have switched the adapter on
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        nested_and_interrupted()
    assert [module.training for module in adapted.modules()] == modes
    assert set(trainable(adapted)) == names
    assert torch.equal(base_model(adapted.eval()).hidden_rows(IDS), hidden)
    hidden.sum().backward()
    assert all(parameter.grad is not None for parameter in trainable(adapted).values())


def test_a_frozen_adapter_stays_frozen_after_the_teacher() -> None:
    adapted = adapted_model().requires_grad_(False)
    with teacher(adapted):
        pass
    assert not trainable(adapted)


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # peft's own call below
def test_save_and_load_give_the_same_logits(tmp_path: Path) -> None:
    adapted = adapted_model(alpha=3.5)
    save_adapter(adapted, tmp_path / "adapter")
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == FILES
    loaded = load_adapter(tiny_model(), tmp_path / "adapter")
    assert torch.equal(logits(loaded), logits(adapted))
    assert not trainable(loaded)
    assert not loaded.training
    # It is peft's own format: peft reads it too.
    assert torch.equal(logits(PeftModel.from_pretrained(tiny_model(), tmp_path / "adapter")), logits(adapted))


def test_saving_replaces_an_older_adapter_as_a_whole(tmp_path: Path) -> None:
    save_adapter(adapted_model(), tmp_path / "adapter")
    (tmp_path / "adapter" / "stale").write_text("")
    save_adapter(adapted_model(rank=2), tmp_path / "adapter")
    assert sorted(file.name for file in (tmp_path / "adapter").iterdir()) == FILES
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_failed_save_leaves_the_older_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_adapter(adapted_model(), tmp_path / "adapter")

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("planted")

    monkeypatch.setattr("tad_ext.models.lora.save_file", full_disk)
    with pytest.raises(OSError, match="planted"):
        save_adapter(adapted_model(rank=2), tmp_path / "adapter")
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def rewrite_weights(folder: Path, change: str) -> None:
    file = folder / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(iter(weights))
    if change == "rename":
        weights[name.replace("q_proj", "attn_out").replace("down_proj", "ff_out")] = weights.pop(name)
    elif change == "reshape":
        weights[name] = weights[name][:-1].clone()
    save_file(weights, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [("rename", r"missing weights: base_model\S*; unexpected weights: base_model\S*$"), ("reshape", "wrong shape")],
)
def test_weights_that_do_not_fit_are_refused_and_the_model_stays_plain(
    tmp_path: Path, change: str, message: str
) -> None:
    save_adapter(adapted_model(), tmp_path / "adapter")
    rewrite_weights(tmp_path / "adapter", change)
    model = tiny_model()
    before = logits(model)
    with pytest.raises(ValueError, match=message):
        load_adapter(model, tmp_path / "adapter")
    assert not any(isinstance(module, BaseTunerLayer) for module in model.modules())
    assert not hasattr(model, "peft_config")
    assert torch.equal(logits(model), before)


def test_an_adapter_of_another_model_size_is_refused(tmp_path: Path) -> None:
    save_adapter(adapted_model(), tmp_path / "adapter")
    for changes, named, misfit in (
        ({"hidden_size": 32}, "hidden_size 24, this model's is 32", r"weights of the wrong shape: .*instead of"),
        ({"num_hidden_layers": 3}, "num_hidden_layers 2, this model's is 3", r"missing weights: .* and 6 more$"),
    ):
        with pytest.raises(ValueError, match=named):
            load_adapter(tiny_model(**changes), tmp_path / "adapter")
        with pytest.raises(ValueError, match=misfit):
            load_adapter(tiny_model(**changes), tmp_path / "adapter", allow_other_model=True)


def test_an_adapter_of_another_base_model_is_refused(tmp_path: Path) -> None:
    for seed in (0, 1):
        tiny_model(seed).save_pretrained(tmp_path / f"base{seed}")
    bases = [TinyDiffusionLM.from_pretrained(tmp_path / f"base{seed}").eval() for seed in (0, 1, 0)]
    adapted = adapted_model(bases[0])
    save_adapter(adapted, tmp_path / "adapter")
    with pytest.raises(ValueError, match=r"made for another model: other weights in model\.safetensors; choose"):
        load_adapter(bases[1], tmp_path / "adapter")
    assert torch.equal(logits(load_adapter(bases[2], tmp_path / "adapter")), logits(adapted))


def test_an_adapter_of_another_model_type_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_adapter(adapted_model(), tmp_path / "adapter")
    monkeypatch.setattr(TinyDiffusionConfig, "model_type", "other")
    with pytest.raises(ValueError, match="model_type tad_tiny, this model's is other"):
        load_adapter(tiny_model(), tmp_path / "adapter")


def test_an_adapter_of_unknown_origin_is_loaded_if_it_fits(tmp_path: Path) -> None:
    adapted = adapted_model()
    adapted.save_pretrained(tmp_path / "adapter")  # as peft writes it
    assert torch.equal(logits(load_adapter(tiny_model(), tmp_path / "adapter")), logits(adapted))


def test_folders_that_hold_no_adapter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config.json"):
        load_adapter(tiny_model(), tmp_path)
    save_adapter(adapted_model(), tmp_path / "adapter")
    (tmp_path / ".tmp-01234567-adapter").mkdir()
    (tmp_path / ".tmp-01234567-adapter" / "adapter_config.json").touch()
    with pytest.raises(FileNotFoundError, match=f"written by save_adapter or peft, such as '{tmp_path / 'adapter'}'"):
        load_adapter(tiny_model(), tmp_path)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
        load_adapter(tiny_model(), tmp_path / "adapter")
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match=r"has no adapter_model.safetensors"):
        load_adapter(tiny_model(), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a JSON object"),
        ("[]", "is not a JSON object: it holds a list"),
        ("{}", "is not the configuration of a LoRA adapter: it names no peft_type and no target_modules"),
        ('{"peft_type": "IA3", "target_modules": []}', "adapter_config.json': peft_type is 'IA3'; supported: 'LORA'"),
        ('{"peft_type": "LORA", "target_modules": null}', "LoRA adapter: it names no target_modules"),
        ('{"peft_type": "LORA", "target_modules": 3}', "target_modules is 3; expected names or a regular expression"),
        ('{"peft_type": "LORA", "target_modules": ["q_proj"], "r": "a"}', "r is 'a'; expected an integer >= 1"),
        ('{"peft_type": "LORA", "target_modules": [], "rank": 3}', "config.json': rank is 3, unknown to peft"),
    ],
)
def test_a_foreign_configuration_is_refused(tmp_path: Path, content: str, message: str) -> None:
    save_adapter(adapted_model(), tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_adapter(tiny_model(), tmp_path / "adapter")


def test_merging_gives_a_plain_model_with_the_same_logits() -> None:
    adapted = adapted_model()
    unmerged = logits(adapted)
    merged = merge_adapter(adapted)
    assert type(merged) is TinyDiffusionLM
    assert not any(isinstance(module, BaseTunerLayer) for module in merged.modules())
    assert not hasattr(merged, "peft_config")
    assert merged.state_dict().keys() == tiny_model().state_dict().keys()
    assert not torch.equal(logits(merged), logits(tiny_model()))
    torch.testing.assert_close(logits(merged), unmerged, rtol=1e-5, atol=1e-5)


def test_a_merged_model_can_be_saved_and_adapted_again(tmp_path: Path) -> None:
    merged = merge_adapter(adapted_model())
    merged.save_pretrained(tmp_path)
    assert torch.equal(logits(TinyDiffusionLM.from_pretrained(tmp_path).eval()), logits(merged))
    adapted_model(merged)


def test_an_adapter_with_nan_is_not_merged() -> None:
    adapted = adapted_model()
    next(iter(trainable(adapted).values())).data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="holds NaN or infinite values"):
        merge_adapter(adapted)
