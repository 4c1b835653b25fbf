import json

import pytest
import torch
from word_checkpoints import CHAT_TEMPLATE, write_words_model

from tad_ext.decoding import DecodeConfig, DelayedCache, TopK, decode_stream, preset
from tad_ext.jobs.common import decoding_of
from tad_ext.jobs.generate.config import GenerateConfig
from tad_ext.jobs.generate.run import generate, read_prompts
from tad_ext.jobs.merge.run import MergeConfig, merge
from tad_ext.models.loading import load_model
from tad_ext.models.lora import add_lora, load_merged, save_adapter
from tad_ext.settings import made, options_of

torch.set_num_threads(1)
DEFAULTS = {"gen_length": 8, "block_length": 4, "block_add_threshold": 1.0, "stop_at_eos": False}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_words_model(tmp_path_factory.mktemp("checkpoints") / "base")


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
    return made(GenerateConfig, DEFAULTS | {"model": str(checkpoint)} | changes)


def test_one_prompt(checkpoint, capsys):
    (one,) = generate(settings(checkpoint, prompt="one two"))
    assert one["prompt"] == "one two"
    assert set(one["response"].split()) <= {"one", "two", "three"}
    assert 1 <= one["tokens"] <= 8
    assert 1 <= one["forwards"] <= 8
    assert capsys.readouterr().out == one["response"] + "\n"


def test_a_model_with_blocks_of_its_own_is_asked_in_these(tmp_path):
    model = str(write_words_model(tmp_path / "words", max_positions=300, causal_block_length=5))
    for preset_name, gen_length in (("tad", 260), ("llada2", 2050)):  # 256 and 2,048 positions in whole blocks
        asked = made(GenerateConfig, {"model": model, "prompt": "one two", "preset": preset_name})
        decoding = decoding_of(asked)
        assert (decoding.block_length, decoding.gen_length) == (5, gen_length)
        assert decoding.policy == asked.decoding.policy
    (one,) = generate(made(GenerateConfig, {"model": model, "prompt": "one two", "policy": "topk:5"}))
    assert one["forwards"] <= 52 + 1
    with pytest.raises(ValueError, match="block_length is 4, and the model attends to blocks of 5"):
        generate(made(GenerateConfig, {"model": model, "prompt": "one", "gen_length": 8, "block_length": 4}))
    with pytest.raises(ValueError, match=r"gen_length must be a multiple of block_length, got gen_length=32 and .*=5"):
        generate(made(GenerateConfig, {"model": model, "prompt": "one", "gen_length": 32}))


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
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"generations.jsonl", "settings.json"}


def test_infill_fills_the_masks_and_gives_the_whole_text(checkpoint, capsys):
    text = "one two <mask> three <mask> two"
    (one,) = generate(settings(checkpoint, prompt=text, infill=True, chat=False))
    words = one["response"].split()
    assert [words[i] for i in (0, 1, 3, 5)] == ["one", "two", "three", "two"]
    assert len(words) == 6
    assert 1 <= one["forwards"] <= 2
    assert one["tokens"] == 2
    assert capsys.readouterr().out == one["response"] + "\n"
    with pytest.raises(ValueError, match="contains the mask id"):
        generate(settings(checkpoint, prompt=text, chat=False))
    with pytest.raises(ValueError, match="contains no mask id, and infill is True"):
        generate(settings(checkpoint, prompt="one two", infill=True, chat=False))
    with pytest.raises(ValueError, match="infill and trace are true"):
        generate(settings(checkpoint, prompt=text, infill=True, chat=False, trace=True, output="anywhere"))
    with pytest.raises(ValueError, match=r"trace is true, and policy rho-eos.* changes the canvas's length"):
        generate(settings(checkpoint, prompt=text, policy="rho-eos", trace=True, output="anywhere"))
    with pytest.raises(ValueError, match="infill is true and so is chat"):
        generate(settings(checkpoint, prompt=text, infill=True))


@pytest.fixture(scope="module")
def instruct(checkpoint, tmp_path_factory):
    """The same model with a chat template."""
    return write_words_model(tmp_path_factory.mktemp("instruct") / "model", chat_template=CHAT_TEMPLATE)


def test_prompts_go_into_the_chat_template(checkpoint, instruct, monkeypatch):
    seen = []

    def spy(model, prompts, *arguments, **options):
        seen.append(prompts)
        return decode_stream(model, prompts, *arguments, **options)

    monkeypatch.setattr("tad_ext.jobs.generate.session.decode_stream", spy)
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
        ({}, "expected exactly one of the three"),
        ({"prompt": "one", "prompts": "file"}, "expected exactly one of the three, got prompt and prompts"),
        ({"prompt": "one", "interactive": True}, "expected exactly one of the three, got prompt and interactive"),
        ({"prompt": "one", "gen_length": 9}, "gen_length must be a multiple of block_length"),
        ({"prompt": "one", "policy": "entropy"}, "policy 'entropy'"),
        ({"prompt": "one", "cache": "triple"}, "cache 'triple'"),
        ({"prompt": "one", "cache": "dual", "guidance": 1.0}, "guidance is 1.0 and cache is dual"),
        ({"prompt": "one", "top_p": 0.5}, "top_p is 0.5 and temperature is 0"),
        ({"prompt": "one", "top_k": 0, "temperature": 1.0}, "top_k must be an integer in .* got 0"),
        ({"prompt": "one", "min_length": 9}, "min_length must be at most gen_length, 8, got 9"),
        ({"prompt": "one", "stop_strings": ["two", ""]}, r"stop_strings\[1\] must be text of at least one character"),
        ({"prompt": "one", "device": "tpu"}, "device"),
        ({"prompt": "one", "dtype": "int8"}, "dtype"),
        ({"prompt": "one", "trace": True, "output": None}, "trace is true and output is none"),
        ({"interactive": True}, "output is '.*a chat .interactive. writes nothing"),
        ({"interactive": True, "output": None, "chat": False}, "chat is false"),
        ({"interactive": True, "output": None}, "interactive: the tokenizer of .* has no chat template"),
        ({"prompt": "one", "model": "nowhere"}, "nowhere"),
        ({"prompt": "one " * 17}, "prompts"),
        ({"prompt": "one <mask>"}, r"prompts\[0\] contains the mask id"),
    ],
)
def test_bad_settings_are_named_before_the_model_is_loaded(checkpoint, tmp_path, monkeypatch, changes, message):
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=message):
        generate(settings(checkpoint, **{"output": str(tmp_path)} | changes))
    assert list(tmp_path.iterdir()) == []


def test_every_decoding_setting_is_one_of_generate():
    ours = {option.name: option.default for option in options_of(GenerateConfig)}
    theirs = {option.name: option.default for option in options_of(DecodeConfig)}
    assert theirs.items() <= ours.items()
    changes = {
        "gen_length": 12, "block_length": 6, "policy": "topk:2", "block_add_threshold": 0.3, "min_length": 3,
        "decoded_token_threshold": 0.4, "cache": "delayed:16,1", "hide_future_blocks": True, "stop_at_eos": False,
        "stop_strings": ["a,b"], "temperature": 0.5, "top_k": 3, "top_p": 0.7, "seed": 5, "batch_size": 2,
        "cuda_graphs": True,
    }  # fmt: skip
    decoding = made(GenerateConfig, {"model": "m", "prompt": "one"} | changes).decoding
    expected = changes | {"policy": TopK(2), "cache": DelayedCache(16, 1), "stop_strings": ("a,b",)}
    assert {name: getattr(decoding, name) for name in expected} == expected
    assert made(GenerateConfig, {"model": "m", "prompt": "one", "guidance": 2.0}).decoding.guidance == 2.0


def test_a_preset_gives_the_settings_that_are_not_given():
    changes = {"model": "m", "prompt": "one", "preset": "tad"}
    assert made(GenerateConfig, changes).decoding == preset("tad")
    assert made(GenerateConfig, changes | {"gen_length": 64}).decoding == preset("tad", gen_length=64)
    with pytest.raises(ValueError, match="preset 'tat': unknown name; expected one of one-per-step, tad"):
        made(GenerateConfig, changes | {"preset": "tat"})


def test_a_response_is_cut_before_its_stop_string(checkpoint):
    def run(**changes):
        sampled = {"policy": "topk:1", "temperature": 2.0, "seed": 1, "min_length": 8}
        return generate(settings(checkpoint, prompt="one two", **sampled, **changes))[0]

    words = run()["response"].split()
    place, stop = next((place, word) for place, word in enumerate(words) if word != words[0])
    cut = run(stop_strings=["nothing", stop, f"{stop} {words[0]}"])
    assert cut["response"] == " ".join(words[:place]) + " "
    assert cut["tokens"] == place + 1
    assert run(stop_strings=[stop[1:], stop])["response"] == cut["response"], "the first of several"
    assert run(stop_strings=[stop, words[0]])["response"] == ""


def test_a_line_of_a_prompt_file_is_one_prompt(tmp_path):
    (tmp_path / "prompts.txt").write_bytes("\ufeffone\u2028still one\r\n\r\nform\x0cfeed\x85\rthe same\n".encode())
    (tmp_path / "prompts.jsonl").write_bytes('\ufeff{"prompt": "How\u2028many?"}\r\n'.encode())
    prompts = [
        read_prompts(GenerateConfig(model="m", prompts=str(tmp_path / name)))
        for name in ("prompts.txt", "prompts.jsonl")
    ]
    assert prompts == [["one\u2028still one", "form\x0cfeed\x85\rthe same"], ["How\u2028many?"]]


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
    with pytest.raises(FileExistsError, match=r"output must be a new or empty folder, got .*, which holds precious"):
        merge(MergeConfig(model=str(checkpoint), adapter=str(adapter), output=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize("path", ["/proc/x/y", "taken/below"])
def test_an_output_is_tried_before_the_model_is_loaded(checkpoint, adapter, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    monkeypatch.setattr("tad_ext.jobs.common.ModelSettings.load", lambda _: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=f"output must be a folder that .*, got '{path}'"):
        merge(MergeConfig(model=str(checkpoint), adapter=str(adapter), output=path))
    with pytest.raises(ValueError, match=f"output must be a folder that .*, got '{path}'"):
        generate(settings(checkpoint, prompt="one", output=path))


def test_merging_into_the_current_folder(checkpoint, adapter, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    merge(MergeConfig(model=str(checkpoint), adapter=str(adapter), output="."))
    assert torch.equal(logits(load_model(tmp_path)), logits(load_merged(checkpoint, adapter)))


def test_a_missing_adapter_leaves_nothing_behind(checkpoint, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        merge(MergeConfig(model=str(checkpoint), adapter=str(tmp_path / "nowhere"), output=str(tmp_path / "merged")))
    assert list(tmp_path.iterdir()) == []
