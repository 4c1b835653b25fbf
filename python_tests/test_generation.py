from __future__ import annotations

import json
import shutil

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tad_ext.decoding import decode
from tad_ext.generation import GenerateConfig, generate, read_prompts
from tad_ext.merging import MergeConfig, load_merged, merge
from tad_ext.models.loading import load_model, save_model
from tad_ext.models.lora import add_lora, save_adapter
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM

torch.set_num_threads(1)
DEFAULTS = {"gen_length": 8, "block_length": 4, "block_add_threshold": 1.0, "stop_at_eos": False}
WORDS = ["<mask>", "<eos>", "<unk>", "one", "two", "three"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny model with random weights and a tokenizer of words."""
    torch.manual_seed(0)
    config = TinyDiffusionConfig(
        vocab_size=len(WORDS), hidden_size=12, intermediate_size=24, num_hidden_layers=1, num_attention_heads=3,
        max_position_embeddings=24, mask_token_id=0, eos_token_ids=[1], suppress_token_ids=[2],
    )  # fmt: skip
    backend = Tokenizer(models.WordLevel({word: token for token, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, mask_token="<mask>", eos_token="<eos>", unk_token="<unk>"
    )
    path = tmp_path_factory.mktemp("checkpoints") / "base"
    save_model(TinyDiffusionLM(config), tokenizer, path)
    return path


@pytest.fixture(scope="module")
def adapter(checkpoint):
    """An adapter on that model which is not the zero function."""
    adapted = add_lora(load_model(checkpoint), rank=2, alpha=2.0, target_modules=["q_proj", "up_proj"])
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.5, generator=torch.Generator().manual_seed(1))
    save_adapter(adapted, checkpoint.parent / "adapter")
    return checkpoint.parent / "adapter"


def settings(checkpoint, **changes):
    return GenerateConfig(**DEFAULTS | {"model": str(checkpoint)} | changes)


def test_one_prompt(checkpoint, capsys):
    (one,) = generate(settings(checkpoint, prompt="one two"))
    assert one["prompt"] == "one two"
    assert set(one["response"].split()) <= {"one", "two", "three"}
    assert 1 <= one["tokens"] <= 8
    assert 1 <= one["forwards"] <= 8
    assert capsys.readouterr().out == one["response"] + "\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [("prompts.txt", "one two\n\nthree\n"), ("prompts.jsonl", '{"prompt": "one two"}\n{"prompt": "three", "id": 7}\n')],
)
def test_a_file_of_prompts(checkpoint, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    responses = generate(settings(checkpoint, prompts=str(tmp_path / name), output=str(tmp_path / "out")))
    assert [one["prompt"] for one in responses] == ["one two", "three"]
    lines = (tmp_path / "out" / "generations.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == responses
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["generations.jsonl"]


@pytest.fixture(scope="module")
def instruct(checkpoint, tmp_path_factory):
    """The same model with a chat template."""
    folder = tmp_path_factory.mktemp("instruct") / "model"
    shutil.copytree(checkpoint, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ 'one ' if message.role == 'user' else 'two ' }}{{ message.content }}"
        "{% endfor %}{% if add_generation_prompt %}{{ ' three' }}{% endif %}"
    )
    return folder


def test_prompts_go_into_the_chat_template(checkpoint, instruct, monkeypatch):
    seen = []

    def spy(model, prompts, *arguments, **options):
        seen.append(prompts)
        return decode(model, prompts, *arguments, **options)

    monkeypatch.setattr("tad_ext.decoding.decode", spy)
    chat = generate(settings(instruct, prompt="two two"))
    plain = generate(settings(instruct, prompt="one two two three", chat=False))
    assert seen == [[[3, 4, 4, 5]]] * 2
    assert chat[0]["prompt"] == "two two"
    assert chat[0]["response"] == plain[0]["response"]
    generate(settings(checkpoint, prompt="two two"))  # without a template there is nothing to put it into
    assert seen[-1] == [[4, 4]]


def test_a_template_that_refuses_is_named(instruct):
    (instruct / "chat_template.jinja").write_text("{{ raise_exception('no users') }}")
    with pytest.raises(ValueError, match="chat template refuses messages of the roles user: no users"):
        generate(settings(instruct, prompt="two"))


def test_decoding_settings_arrive(checkpoint):
    slow = generate(settings(checkpoint, prompt="one", policy="topk:1"))[0]
    fast = generate(settings(checkpoint, prompt="one", policy="topk:4"))[0]
    assert (slow["forwards"], fast["forwards"]) == (8, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "expected exactly one of the two"),
        ({"prompt": "one", "prompts": "file"}, "expected exactly one of the two"),
        ({"prompt": "one", "gen_length": 9}, "gen_length must be a multiple of block_length"),
        ({"prompt": "one", "policy": "entropy"}, "policy 'entropy'"),
        ({"prompt": "one", "model": "nowhere"}, "nowhere"),
        ({"prompt": "one " * 17}, "prompts"),
    ],
)
def test_bad_settings_are_named(checkpoint, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        generate(settings(checkpoint, output=str(tmp_path), **changes))
    assert list(tmp_path.iterdir()) == []


def test_bad_prompt_files_are_named(tmp_path):
    def read(name, content):
        (tmp_path / name).write_text(content)
        return read_prompts(GenerateConfig(model="m", prompts=str(tmp_path / name)))

    with pytest.raises(ValueError, match=r"empty.txt', which holds no prompts"):
        read("empty.txt", "\n\n")
    with pytest.raises(ValueError, match=r"broken.jsonl, line 2: not JSON"):
        read("broken.jsonl", '{"prompt": "one"}\n{"prompt"\n')
    with pytest.raises(ValueError, match=r'other.jsonl, line 1: expected \{"prompt"'):
        read("other.jsonl", '{"text": "one"}\n')
    with pytest.raises(FileNotFoundError, match=r"nowhere.txt"):
        read_prompts(GenerateConfig(model="m", prompts=str(tmp_path / "nowhere.txt")))


def logits(model):
    with torch.inference_mode():
        return model(torch.tensor([[3, 4, 0, 0]])).logits


def test_a_merged_checkpoint_is_the_adapted_model(checkpoint, adapter, tmp_path):
    origin = merge(MergeConfig(model=str(checkpoint), adapter=str(adapter), output=str(tmp_path / "merged")))
    merged, adapted = load_model(tmp_path / "merged"), load_merged(checkpoint, adapter)
    assert torch.allclose(logits(merged), logits(adapted), atol=1e-6)
    assert not torch.allclose(logits(merged), logits(load_model(checkpoint)), atol=1e-2)
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert origin["model"] == str(checkpoint)
    assert json.loads((tmp_path / "merged" / "merged_from.json").read_text())["adapter"] == str(adapter)


def test_generating_with_an_adapter_is_generating_with_the_merged_model(checkpoint, adapter, tmp_path):
    merge(MergeConfig(model=str(checkpoint), adapter=str(adapter), output=str(tmp_path / "merged")))
    with_adapter = generate(settings(checkpoint, prompt="one two", adapter=str(adapter), policy="topk:1"))
    assert with_adapter == generate(settings(tmp_path / "merged", prompt="one two", policy="topk:1"))


def test_merging_does_not_replace_anything(checkpoint, adapter, tmp_path):
    (tmp_path / "precious").write_text("data")
    with pytest.raises(ValueError, match="not an empty folder"):
        merge(MergeConfig(model=str(checkpoint), adapter=str(adapter), output=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_missing_adapter_leaves_nothing_behind(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        merge(MergeConfig(model=str(checkpoint), adapter=str(tmp_path / "nowhere"), output=str(tmp_path / "merged")))
    assert list(tmp_path.iterdir()) == []
