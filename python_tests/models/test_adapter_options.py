"""Adapters that peft made, option by option: the teacher is the base and merging is exact, or the option is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from every_family import edit_json
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from tiny_checkpoints import write_dream, write_llada
from tiny_models import logits, tiny_model, trainable
from torch import nn

from tad_ext.models import base_model, load_adapter, load_model, load_tokenizer, merge_adapter, save_adapter, teacher
from tad_ext.models.loading import save_model

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing"),
    pytest.mark.filterwarnings("ignore:.*(eva|aLoRA|PiSSA|save_embedding_layers)"),
]

SUPPORTED: list[dict[str, Any]] = [
    {"modules_to_save": ["lm_head"]},
    {"modules_to_save": ["norm", "embed_tokens"]},
    {"modules_to_save": ["lm_head"], "target_modules": ["q_proj", "lm_head"]},  # the head is no target then
    {"use_dora": True},
    {"use_rslora": True, "rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"layers.1.*": 5}},
    {"target_modules": r".*\.(q|down)_proj", "exclude_modules": ["layers.0.self_attn.q_proj"]},
    {"layers_to_transform": [1], "layers_pattern": "layers"},
    {"init_lora_weights": "gaussian"},
    {"init_lora_weights": "orthogonal"},
    {"init_lora_weights": "eva"},
    {"init_lora_weights": False},
    {"task_type": "CAUSAL_LM"},
]
# With a value of each that peft accepts and with which the teacher would not be the base, or merging not be exact.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"bias": "all"}, "bias is 'all'; supported: 'none' (trained biases stand in the base model's place"),
    ({"bias": "lora_only"}, "bias is 'lora_only'; supported: 'none'"),
    ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'; supported: True, False, 'gaussian', "),
    ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights is 'pissa_niter_4'; supported: "),
    ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'; supported: "),
    ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication is [[0, 2], [1, 2]]; supported: null, false or empty"),
    ({"trainable_token_indices": [1]}, "trainable_token_indices is [1]; supported: null"),
    (
        {"target_parameters": ["self_attn.o_proj.weight"]},
        "target_parameters is ['self_attn.o_proj.weight']; ",
    ),
    ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens is [3]; supported: null"),
]


def made_by_peft(model: nn.Module, **options: Any) -> PeftModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        adapted = get_peft_model(model, LoraConfig(**{"r": 4, "target_modules": ["q_proj", "down_proj"], **options}))
        for parameter in trainable(adapted).values():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return adapted.eval()


def edit_config(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    edit_json(folder / "adapter_config.json", edit)


@pytest.mark.parametrize("options", SUPPORTED, ids=str)
def test_loaded_switched_off_and_merged(tmp_path: Path, options: dict[str, Any]) -> None:
    made = made_by_peft(tiny_model(), **options)
    made.save_pretrained(tmp_path)
    base, wanted = logits(tiny_model()), logits(made)
    assert (wanted - base).abs().max() > 0.1
    adapted = load_adapter(tiny_model(), tmp_path)
    for model in (made, adapted):
        assert torch.equal(logits(model), wanted)
        with teacher(model):
            assert torch.equal(logits(model), base)
            assert torch.equal(base_model(model).lm_head.weight, tiny_model().lm_head.weight)  # what losses read
            with teacher(model):
                pass
            assert torch.equal(logits(model), base)
        assert torch.equal(logits(model), wanted)
    assert not trainable(adapted)
    save_adapter(adapted, tmp_path / "again")
    assert torch.equal(logits(load_adapter(tiny_model(), tmp_path / "again")), wanted)
    merged = merge_adapter(adapted)
    assert merged.state_dict().keys() == tiny_model().state_dict().keys()
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("write", [write_llada, write_dream])
def test_whole_modules_are_merged_into_the_checkpoint(tmp_path: Path, write: Any) -> None:
    written = write(tmp_path / "base")
    made = made_by_peft(load_model(written.folder), modules_to_save=["lm_head", "input_layernorm"])
    made.save_pretrained(tmp_path / "adapter")
    merged: Any = merge_adapter(load_adapter(load_model(written.folder), tmp_path / "adapter"))
    assert torch.equal(merged.lm_head.weight, base_model(made).lm_head.weight)
    save_model(merged, load_tokenizer(written.folder), tmp_path / "merged")
    torch.testing.assert_close(logits(load_model(tmp_path / "merged")), logits(made), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=str)
def test_refused_at_every_door(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    made = made_by_peft(tiny_model(attention_bias=True), **options)
    made.save_pretrained(tmp_path)
    model = tiny_model(attention_bias=True)
    before = logits(model)
    doors: list[tuple[Callable[[], object], str]] = [
        (lambda: load_adapter(model, tmp_path), f"'{tmp_path / 'adapter_config.json'}': {message}"),
        (lambda: teacher(made).__enter__(), f"model's adapter 'default': {message}"),
        (lambda: merge_adapter(made), f"model's adapter 'default': {message}"),
    ]
    for door, expected in doors:
        with pytest.raises(ValueError) as caught:
            door()
        assert expected in str(caught.value)
    assert torch.equal(logits(model), before)
    assert not hasattr(model, "peft_config")


def test_another_kind_of_adapter_has_no_teacher() -> None:
    config = IA3Config(target_modules=["q_proj", "down_proj"], feedforward_modules=["down_proj"])
    with (
        pytest.raises(ValueError, match=r"peft_type is .*IA3.*; supported: 'LORA'"),
        teacher(get_peft_model(tiny_model(), config)),
    ):
        pass


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_head_and_embeddings_stay_tied(tmp_path: Path, module: str) -> None:
    with pytest.warns(UserWarning, match="tie_word_embeddings"):
        made = made_by_peft(tiny_model(tie_word_embeddings=True), modules_to_save=[module])
    made.save_pretrained(tmp_path)
    for door in (lambda: load_adapter(tiny_model(tie_word_embeddings=True), tmp_path), lambda: merge_adapter(made)):
        with pytest.raises(ValueError, match=rf"modules_to_save \['{module}'\] would untie the model's head"):
            door()


def test_a_merged_adapter_has_no_teacher() -> None:
    adapted = made_by_peft(tiny_model())
    adapted.merge_adapter()
    with pytest.raises(ValueError, match="model has its adapter merged"), teacher(adapted):
        pass


@pytest.mark.parametrize("off", [None, False, "", [], {}])
def test_options_of_a_newer_peft_that_are_off(tmp_path: Path, off: object) -> None:
    made = made_by_peft(tiny_model())
    made.save_pretrained(tmp_path)
    notes = {"runtime_config": {"gpu": True}, "base_model_name_or_path": "someone/elses-model", "revision": "main"}
    edit_config(tmp_path, lambda options: options.update(an_option_of_tomorrow=off, **notes))
    assert torch.equal(logits(load_adapter(tiny_model(), tmp_path)), logits(made))


@pytest.mark.parametrize("on", [True, 0, "x", [0]])
def test_options_of_a_newer_peft_that_are_on(tmp_path: Path, on: object) -> None:
    made_by_peft(tiny_model()).save_pretrained(tmp_path)
    edit_config(tmp_path, lambda options: options.update(an_option_of_tomorrow=on))
    with pytest.raises(ValueError) as caught:
        load_adapter(tiny_model(), tmp_path)
    for part in (str(tmp_path), f"an_option_of_tomorrow is {on!r}, unknown to peft ", "it may be of a newer peft"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (
            r".*\.x_proj",
            r"target_modules \['\.\*\\\\.x_proj'\] match no linear module of the model; choose among: down",
        ),
        ("q_proj", r"target_modules \['q_proj'\] match no linear module"),  # an expression is of the full name
        (
            ".*(norm|q_proj)",
            "match .*input_layernorm.* what is no linear module can be adapted; choose among: down_proj",
        ),
        (".*", "match itself, lm_head, .*; neither the output head nor"),
        ("", "target_modules must name at least one linear module"),
        ("(", r"target_modules is '\(', which is no regular expression: "),
    ],
)
def test_expressions_that_match_something_else(tmp_path: Path, targets: str, message: str) -> None:
    made_by_peft(tiny_model()).save_pretrained(tmp_path)
    edit_config(tmp_path, lambda options: options.update(target_modules=targets))
    with pytest.raises(ValueError, match=message):
        load_adapter(tiny_model(), tmp_path)


def test_an_adapter_converted_from_pissa_is_one_like_any_other(tmp_path: Path) -> None:
    """As peft's guide has it: the start is saved before the training, and subtracted afterwards."""
    adapted = get_peft_model(tiny_model(), LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights="pissa"))
    adapted.save_pretrained(tmp_path / "start")
    for parameter in trainable(adapted).values():
        parameter.data += 0.3
    wanted = logits(adapted.eval())
    adapted.save_pretrained(tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "start"))
    model = load_adapter(tiny_model(), tmp_path / "adapter")
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-4)
    with teacher(model):
        assert torch.equal(logits(model), logits(tiny_model()))
