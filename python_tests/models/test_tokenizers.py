"""Tokenizers of original checkpoints: the right ids without running code, chat templates, agreement with the model."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import QWEN2_SPLIT, TinyCheckpoint, write_dream, write_llada
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from transformers import PreTrainedTokenizerFast

from tad_ext.data.tasks.arithmetic import arithmetic_tokenizer
from tad_ext.models import load_config, load_model, load_tokenizer
from tad_ext.models.tokenizers import check_tokenizer, ids_without_token, tokenizer_hash

TEXTS = [
    "Anna's 1,250 apples!", "  two  spaces\n\n\tand lines\r\n", "naïve café e\u0301", "漢字と🙂", "", "x=-3.5;y_2",
    "I'LL DON'T",
]  # fmt: skip
WRITERS = {"llada": write_llada, "dream": write_dream}


@pytest.fixture(params=["llada", "dream"])
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> TinyCheckpoint:
    return WRITERS[request.param](tmp_path / request.param)


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads(file.read_text())
    change(fields)
    file.write_text(json.dumps(fields))


@pytest.mark.parametrize("text", TEXTS)
def test_dream_is_a_byte_level_bpe_with_qwen2s_splitting(tmp_path: Path, text: str) -> None:
    """Against the same rules put together by hand, without transformers."""
    write_dream(tmp_path)
    plain = Tokenizer(BPE.from_file(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")))
    plain.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated")
    plain.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    plain.decoder = decoders.ByteLevel()
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(text) == plain.encode(text).ids
    assert tokenizer.decode(tokenizer.encode(text)) == plain.decode(plain.encode(text).ids)


@pytest.mark.parametrize("text", TEXTS)
def test_llada_is_its_tokenizer_json(tmp_path: Path, text: str) -> None:
    write_llada(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(text) == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode(text).ids


def test_every_token_has_its_id(checkpoint: TinyCheckpoint) -> None:
    tokenizer = load_tokenizer(checkpoint.folder)
    assert tokenizer.get_vocab() == checkpoint.token_ids
    for token, token_id in checkpoint.token_ids.items():
        if token.startswith("<|") and token.endswith("|>"):
            assert tokenizer.encode(f"a{token}b")[1:-1] == [token_id]
            assert tokenizer.decode([token_id], skip_special_tokens=True) == ""
    assert tokenizer.eos_token == tokenizer.pad_token == "<|endoftext|>"
    assert ids_without_token(tokenizer, len(tokenizer) + 3) == [len(tokenizer) + number for number in range(3)]


def test_chat_templates(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "How many?"}]
    llada = load_tokenizer(write_llada(tmp_path / "llada").folder)
    assert llada.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nHow many?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    dream = load_tokenizer(write_dream(tmp_path / "dream").folder)
    assert dream.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nHow many?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_chat_template_in_its_own_file(checkpoint: TinyCheckpoint) -> None:
    edit(checkpoint.folder / "tokenizer_config.json", lambda fields: fields.pop("chat_template"))
    (checkpoint.folder / "chat_template.jinja").write_text("[{{ messages[0]['content'] }}]")
    tokenizer = load_tokenizer(checkpoint.folder)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "[hi]"


def test_saved_back_and_loaded_again(checkpoint: TinyCheckpoint, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(checkpoint.folder)
    saved = tmp_path / "saved"
    tokenizer.save_pretrained(saved)
    (saved / "config.json").write_text((checkpoint.folder / "config.json").read_text())
    again = load_tokenizer(saved)
    assert again.get_vocab() == checkpoint.token_ids
    assert again.chat_template == tokenizer.chat_template
    assert (again.mask_token_id, again.bos_token_id) == (tokenizer.mask_token_id, tokenizer.bos_token_id)
    assert all(again.encode(text) == tokenizer.encode(text) for text in TEXTS)
    assert "auto_map" not in json.loads((saved / "tokenizer_config.json").read_text())


def test_no_code_of_the_folder_runs(checkpoint: TinyCheckpoint) -> None:
    names = ["tokenization_dream", "configuration_dream", "modeling_dream", "configuration_llada", "modeling_llada"]
    for name in names:
        (checkpoint.folder / f"{name}.py").write_text(
            f"from pathlib import Path\nPath({str(checkpoint.folder)!r}, 'ran').touch()\n"
        )
    edit(
        checkpoint.folder / "tokenizer_config.json",
        lambda fields: fields.update(auto_map={"AutoTokenizer": ["tokenization_dream.DreamTokenizer", None]}),
    )
    load_tokenizer(checkpoint.folder)
    load_model(checkpoint.folder)
    assert not (checkpoint.folder / "ran").exists()


def mask_of(checkpoint: TinyCheckpoint) -> tuple[str, int]:
    name = "<|mdm_mask|>" if "<|mdm_mask|>" in checkpoint.token_ids else "<|mask|>"
    return name, checkpoint.token_ids[name]


@pytest.mark.parametrize("offset", [1, -1, 20, -200])
def test_a_mask_id_that_is_another_token(checkpoint: TinyCheckpoint, offset: int) -> None:
    name, mask = mask_of(checkpoint)
    edit(checkpoint.folder / "config.json", lambda fields: fields.update(mask_token_id=mask + offset))
    for load in (load_tokenizer, load_model):
        with pytest.raises(ValueError) as caught:
            load(checkpoint.folder)
        message = str(caught.value)
        assert f"mask token {name!r} has id {mask}, mask_token_id is {mask + offset}" in message
        assert str(checkpoint.folder) in message
        assert "config.json" in message


def test_the_tokenizer_of_another_model(tmp_path: Path) -> None:
    """Fewer tokens, so that the model's special ids are nothing in it."""
    big, small = write_llada(tmp_path / "big", vocabulary=400), write_llada(tmp_path / "small", vocabulary=300)
    (big.folder / "tokenizer.json").write_text((small.folder / "tokenizer.json").read_text())
    edit(big.folder / "tokenizer_config.json", lambda fields: fields.pop("added_tokens_decoder"))
    with pytest.raises(ValueError, match=r"its mask token '<\|mdm_mask\|>' has id 302, mask_token_id is 402"):
        load_tokenizer(big.folder)


def test_a_mask_that_is_an_ordinary_token(checkpoint: TinyCheckpoint) -> None:
    config = load_config(checkpoint.folder)
    tokenizer = load_tokenizer(checkpoint.folder)
    tokenizer.mask_token = None
    config.mask_token = None
    config.mask_token_id = checkpoint.token_ids["Ġapples"]
    with pytest.raises(
        ValueError, match=r"mask_token_id \d+ is the ordinary token 'Ġapples' there, expected a special"
    ):
        check_tokenizer(config, tokenizer, checkpoint.folder)
    config.mask_token_id = len(tokenizer) + 2
    with pytest.raises(ValueError, match=r"mask_token_id \d+ is no token there, expected a special token"):
        check_tokenizer(config, tokenizer, checkpoint.folder)


@pytest.mark.parametrize(("ends", "message"), [([5], r"has id \d+, which is not among the model's eos_token_ids 5")])
def test_an_end_of_sequence_id_that_is_another_token(checkpoint: TinyCheckpoint, ends: list[int], message: str) -> None:
    edit(checkpoint.folder / "config.json", lambda fields: fields.update(eos_token_ids=ends))
    with pytest.raises(ValueError, match=message):
        load_tokenizer(checkpoint.folder)
    both = [checkpoint.token_ids["<|endoftext|>"], 5]
    edit(checkpoint.folder / "config.json", lambda fields: fields.update(eos_token_ids=both))
    with pytest.raises(ValueError, match=r"eos_token_ids 5 is the ordinary token '.*' there"):
        load_tokenizer(checkpoint.folder)


def test_a_token_that_the_logits_do_not_cover(checkpoint: TinyCheckpoint) -> None:
    config, tokenizer = load_config(checkpoint.folder), load_tokenizer(checkpoint.folder)
    tokenizer.add_tokens([f"extra{number}" for number in range(37)])
    check_tokenizer(config, tokenizer, checkpoint.folder)
    tokenizer.add_tokens(["one more"])
    with pytest.raises(ValueError, match=rf"'one more' has id {config.vocab_size}, expected ids < vocab_size"):
        check_tokenizer(config, tokenizer, checkpoint.folder)


def test_folders_without_a_tokenizer(checkpoint: TinyCheckpoint) -> None:
    for file in ("tokenizer.json", "vocab.json"):
        (checkpoint.folder / file).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"must be a folder with a tokenizer \(tokenizer.json, or vocab.json"):
        load_tokenizer(checkpoint.folder)
    assert load_model(checkpoint.folder).config.suppress_token_ids is None  # a model alone can be loaded


@pytest.mark.parametrize("content", ["{", "", '{"version": "1.0"}', "[]"])
def test_damaged_tokenizer_files(checkpoint: TinyCheckpoint, content: str) -> None:
    name = "tokenizer.json" if (checkpoint.folder / "tokenizer.json").exists() else "vocab.json"
    (checkpoint.folder / name).write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer files in .* are damaged|disagrees with config\.json"):
        load_tokenizer(checkpoint.folder)


def test_the_tiny_models_tokenizer_agrees_with_it() -> None:
    tokenizer = arithmetic_tokenizer()

    class Config:
        vocab_size, mask_token_id, eos_token_ids = len(tokenizer), tokenizer.mask_token_id, [tokenizer.eos_token_id]

    check_tokenizer(Config, tokenizer, "tiny")


def test_the_hash_sees_meaning_and_not_use() -> None:
    def build(*words: str) -> PreTrainedTokenizerFast:
        core = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
        return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", pad_token="?")

    used = build("?", "a", "b")
    used(["a", "a b"], padding=True, truncation=True, max_length=8)
    assert tokenizer_hash(used) == tokenizer_hash(build("?", "a", "b")) != tokenizer_hash(build("?", "b", "a"))
