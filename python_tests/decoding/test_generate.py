"""`model.generate` gives what `decode` gives, in transformers' form."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedTokenizerFast,
    TextIteratorStreamer,
    pipeline,
)
from word_checkpoints import CHAT_TEMPLATE, write_words_model

from python_tests.decoding.conftest import EOS, MASK, RAGGED, MixingModel, ScriptedModel
from tad_ext.decoding import DecodeConfig, decode, preset
from tad_ext.decoding.generation import GenerationRequest, generate
from tad_ext.models.loading import load_model, load_tokenizer

PAD = 8
IDS = torch.tensor([[1, 2, 3]])
THRESHOLD = {"policy": "confidence:0.35", "block_length": 4}


def padded(side):
    """RAGGED as a tokenizer gives it: ids and attention mask."""
    width = max(map(len, RAGGED))

    def beside(row, filling):
        return [filling] * (width - len(row)) + row if side == "left" else row + [filling] * (width - len(row))

    return tuple(
        torch.tensor([beside(row, filling) for row in rows])
        for rows, filling in ((RAGGED, PAD), ([[1] * len(row) for row in RAGGED], 0))
    )


def tokenizer():
    """One word a token, "t0" to "t8" and those of their own."""
    words = {f"t{token}": token for token in range(9)} | {"<eos>": EOS, "<mask>": MASK, "<none>": 11}
    backend = Tokenizer(models.WordLevel(words, unk_token="<none>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", mask_token="<mask>")


class Recorder:
    """A streamer with drafts."""

    def __init__(self):
        self.puts, self.drafts, self.ended = [], [], 0

    def put(self, value):
        self.puts.append(value)

    def put_draft(self, value):
        self.drafts.append((self.given, value.tolist()))

    def end(self):
        self.ended += 1

    @property
    def tokens(self):
        return [token for value in self.puts[1:] for token in value.tolist()]

    @property
    def given(self):
        return len(self.tokens)


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_are_those_of_decode_whatever_their_padding(transformer, side):
    ids, mask = padded(side)
    output = transformer.generate(
        ids, attention_mask=mask, pad_token_id=PAD, max_new_tokens=12, return_dict_in_generate=True, **THRESHOLD
    )
    expected = decode(transformer, RAGGED, DecodeConfig(gen_length=12, **THRESHOLD))
    lengths = expected.response_lengths
    width = ids.shape[1] + int(lengths.max())
    assert output.sequences.shape == (len(RAGGED), width)
    assert torch.equal(output.sequences[:, : ids.shape[1]], ids)
    for row, length in enumerate(lengths.tolist()):
        new, steps = output.sequences[row, ids.shape[1] :].tolist(), output.reveal_step[row].tolist()
        assert new[:length] == expected.canvases()[row][:length]
        assert set(new[length:]) <= {PAD}
        assert steps[:length] == expected.reveal_step[row, :length].tolist()
        assert set(steps[length:]) <= {0}
    assert output.forwards.tolist() == expected.forwards.tolist()
    assert output.tokens_per_forward.tolist() == pytest.approx(expected.tokens_per_forward.tolist())
    plain = transformer.generate(ids, attention_mask=mask, pad_token_id=PAD, max_new_tokens=12, **THRESHOLD)
    assert torch.equal(plain, output.sequences)


def test_an_adapted_model_generates_with_its_adapter(transformer):
    before = transformer.generate(IDS, max_new_tokens=8)
    adapted = get_peft_model(transformer, LoraConfig(target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    found = adapted.eval().generate(IDS, max_new_tokens=8)
    assert found.tolist() == adapted.get_base_model().generate(input_ids=IDS, max_new_tokens=8).tolist()
    assert found.tolist() != before.tolist()


@given(
    seed=st.integers(0, 50),
    longest=st.integers(1, 14),
    threshold=st.sampled_from([0.2, 0.35, 0.6]),
    stop_at_eos=st.booleans(),
    stop=st.sampled_from([(), ("t3",), ("t1 t", "t7")]),
)
@settings(max_examples=60)
def test_a_streamer_is_given_every_token_once_in_order_when_it_is_final(seed, longest, threshold, stop_at_eos, stop):
    model, recorder = MixingModel(seed), Recorder()
    options = {
        "policy": f"confidence:{threshold}", "block_length": 4, "block_add_threshold": 0.25, "max_new_tokens": longest,
        "stop_at_eos": stop_at_eos, "stop_strings": stop, "tokenizer": tokenizer(),
    }  # fmt: skip
    output = generate(model, IDS, streamer=recorder, return_dict_in_generate=True, **options)
    response = output.sequences[0, IDS.shape[1] :].tolist()
    assert recorder.puts[0].tolist() == IDS.tolist()
    assert recorder.tokens == response
    assert 0 < len(response) <= longest
    assert all(value.dim() == 1 and len(value) for value in recorder.puts[1:])
    assert recorder.ended == 1
    # A draft after every forward: from the first mask or end on, what the response is to have there, or masks.
    assert len(recorder.drafts) == int(output.forwards)
    steps = output.reveal_step[0].tolist()
    for forward, (start, [draft]) in enumerate(recorder.drafts, 1):
        assert start + len(draft) == longest
        assert not draft or draft[0] in (MASK, EOS)
        for token, drafted, step in zip(response[start:], draft, steps[start:]):
            assert drafted == (token if step <= forward else MASK)


def test_a_plain_text_streamer_says_what_the_response_says():
    words, model = tokenizer(), MixingModel(3)
    streamer = TextIteratorStreamer(words, skip_prompt=True, timeout=1)
    sequences = generate(model, IDS, streamer=streamer, max_new_tokens=8)
    assert "".join(streamer) == words.decode(sequences[0, IDS.shape[1] :])


def test_a_pipeline_of_transformers_takes_the_model(tmp_path):
    folder = write_words_model(tmp_path / "model", chat_template=CHAT_TEMPLATE)
    model, words = load_model(folder), load_tokenizer(folder)
    pipe = pipeline("text-generation", model=model, tokenizer=words)
    [said] = pipe([{"role": "user", "content": "two"}], max_new_tokens=8, do_sample=False, policy="topk:2")
    expected = decode(model, [words("one two three").input_ids], DecodeConfig(8, 8, policy="topk:2"))
    assert said["generated_text"][-1] == {"role": "assistant", "content": words.decode(expected.responses()[0])}
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is type(model)


def test_what_a_streamer_raises_ends_the_call(transformer):
    class Gone(Recorder):
        def put_draft(self, value):
            raise ConnectionError("the reader has gone")

    transformer.train()
    with pytest.raises(ConnectionError):
        transformer.generate(IDS, streamer=Gone(), max_new_tokens=8)
    assert transformer.training  # as it was
    assert transformer.eval().generate(IDS, max_new_tokens=8).shape[0] == 1


@pytest.mark.parametrize(
    ("options", "canvas", "block"),
    [
        ({"max_new_tokens": 10, "block_length": 4}, 12, 4),
        ({"max_new_tokens": 5}, 5, 5),
        ({"max_new_tokens": 3, "block_length": 4}, 4, 4),
        ({"max_length": 11, "block_length": 4}, 8, 4),
        ({"max_new_tokens": 40}, 64, 32),
        ({"max_new_tokens": 24, "preset": "dream"}, 24, 24),
        ({"preset": "llada"}, 128, 128),
        ({}, 256, 32),
    ],
)
def test_the_canvas_is_whole_blocks(options, canvas, block):
    model = MixingModel()
    model.config.max_position_embeddings = 300
    request = GenerationRequest.of(model, IDS, **options)
    assert (request.decoding.gen_length, request.decoding.block_length) == (canvas, block)


def test_what_the_canvas_has_beyond_is_cut_off():
    model = ScriptedModel([0.9] * 8)
    output = generate(model, torch.tensor([[7]]), max_new_tokens=5, block_length=4, return_dict_in_generate=True)
    assert output.sequences.tolist() == [[7, 1, 2, 3, 4, 5]]
    assert output.reveal_step.tolist() == [[1, 2, 3, 4, 5]]
    assert output.forwards.tolist() == [8]
    assert output.tokens_per_forward.tolist() == [5 / 8]


def test_an_end_is_part_of_the_response_and_a_stop_string_too():
    model = ScriptedModel([0.9] * 6, tokens=[1, 2, EOS, 4, 5, 6])
    assert generate(model, torch.tensor([[7]]), max_new_tokens=6).tolist() == [[7, 1, 2, EOS]]
    ends = {"eos_token_ids": (5,)}
    assert generate(model, torch.tensor([[7]]), max_new_tokens=6, **ends).tolist() == [[7, 1, 2, EOS, 4, 5]]
    words = {"stop_strings": "t2", "tokenizer": tokenizer()}
    assert generate(model, torch.tensor([[7]]), max_new_tokens=6, **words).tolist() == [[7, 1, 2]]


def test_the_models_own_end_stands_for_all_of_its_ends():
    model = ScriptedModel([0.9] * 6, tokens=[1, 2, 5, 4, EOS, 6])
    model.config.eos_token_id, model.config.eos_token_ids = EOS, [EOS, 5]
    for end in (EOS, [EOS], torch.tensor(EOS)):
        assert generate(model, torch.tensor([[7]]), max_new_tokens=6, eos_token_id=end).tolist() == [[7, 1, 2, 5]]
    assert generate(model, torch.tensor([[7]]), max_new_tokens=6, eos_token_id=4).tolist() == [[7, 1, 2, 5, 4]]


def test_a_configuration_says_the_same_as_options_which_override_it():
    model = MixingModel()
    options = {"max_new_tokens": 8, "temperature": 0.7, "top_p": 0.9, "top_k": 5, "do_sample": True}
    config = GenerationConfig(**options, policy="confidence:0.35", num_beams=1, repetition_penalty=1.0, use_cache=True)
    request = GenerationRequest.of(model, IDS, config, seed=3)
    by_name = GenerationRequest.of(model, IDS, **options, policy="confidence:0.35", seed=3)
    assert request.decoding == by_name.decoding
    assert dataclasses.replace(request.decoding, temperature=0.1) == (
        GenerationRequest.of(model, IDS, config, seed=3, temperature=0.1).decoding
    )


@pytest.mark.parametrize(
    ("options", "temperature", "top_p"),
    [
        ({}, 0.0, 1.0),
        ({"temperature": 0.6, "top_p": 0.8}, 0.6, 0.8),
        ({"do_sample": True}, 1.0, 1.0),
        ({"do_sample": True, "temperature": 0.3}, 0.3, 1.0),
        ({"do_sample": False, "temperature": 0.3, "top_p": 0.8, "top_k": 4}, 0.0, 1.0),
        ({"preset": "tad-collect-dream"}, 0.2, 0.95),
        ({"preset": "tad-collect-dream", "temperature": 0}, 0.0, 1.0),
        ({"temperature": 0.5, "top_k": 0}, 0.5, 1.0),
    ],
)
def test_what_is_sampled(options, temperature, top_p):
    decoding = GenerationRequest.of(MixingModel(), IDS, max_new_tokens=8, **options).decoding
    assert (decoding.temperature, decoding.top_p, decoding.top_k) == (temperature, top_p, None)


def test_torchs_seed_is_that_of_sampling():
    model = MixingModel()

    def sampled(**options):
        return generate(model, IDS, max_new_tokens=12, temperature=2.0, stop_at_eos=False, **options).tolist()

    torch.manual_seed(5)
    first, second = sampled(), sampled()
    torch.manual_seed(5)
    assert [sampled(), sampled()] == [first, second]
    assert first != second
    assert sampled(seed=7) == sampled(seed=7)


def test_decoding_settings_are_given_by_name_or_whole():
    model = MixingModel()
    named = GenerationRequest.of(model, IDS, preset="tad", max_new_tokens=32).decoding
    assert named == preset("tad", gen_length=32)
    assert GenerationRequest.of(model, IDS, decoding=preset("tad"), max_new_tokens=32).decoding == named


TWO = torch.tensor([[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_beams": 4}, ValueError, "num_beams is 4, which has no meaning in diffusion decoding"),
        ({"num_return_sequences": 2}, ValueError, "num_return_sequences is 2"),
        ({"logits_processor": [len]}, ValueError, "logits_processor is "),
        ({"stopping_criteria": [len]}, ValueError, "stopping_criteria is "),
        ({"assistant_model": object()}, ValueError, "assistant_model is "),
        ({"repetition_penalty": 1.2}, ValueError, "repetition_penalty is 1.2"),
        ({"generation_config": GenerationConfig(num_beams=3)}, ValueError, "num_beams is 3"),
        ({"generation_config": {"num_beams": 3}}, TypeError, "generation_config must be a transformers Gen.* got dict"),
        ({"gen_length": 8}, ValueError, "gen_length is 8.*expected max_new_tokens"),
        ({"min_length": 8}, ValueError, "min_length is 8.*expected min_new_tokens"),
        ({"infill": True}, ValueError, "infill is True.*expected tad_ext.decode"),
        ({"inputs": IDS}, ValueError, "inputs is tensor.*expected input_ids"),
        ({"polcy": "topk:2"}, ValueError, "polcy is 'topk:2'.*did you mean policy"),
        ({"preset": "nothing"}, ValueError, "preset 'nothing': unknown name"),
        ({"preset": "tad", "decoding": DecodeConfig()}, ValueError, "preset is 'tad', and decoding is given"),
        ({"decoding": {"policy": "topk:1"}}, TypeError, "decoding must be a DecodeConfig"),
        ({"max_new_tokens": 0}, ValueError, r"max_new_tokens must be an integer in .* got 0"),
        ({"max_new_tokens": 2.5}, TypeError, "max_new_tokens must be an integer"),
        ({"max_length": 3, "max_new_tokens": None}, ValueError, "max_length is 3: expected more than the 3 columns"),
        (
            {"max_new_tokens": 62},
            ValueError,
            "input_ids, with 62 new tokens in blocks of 32: .*together 67, more than the",
        ),
        ({"temperature": -1}, ValueError, "temperature must be a finite number"),
        ({"do_sample": "yes"}, TypeError, "do_sample must be true or false or none"),
        ({"do_sample": True, "temperature": 0}, ValueError, "do_sample is True and temperature is 0"),
        ({"top_p": 0.5}, ValueError, "top_p is 0.5 and temperature is 0"),
        ({"stop_strings": "t1"}, ValueError, "tokenizer is None"),
        ({"eos_token_id": "x"}, TypeError, "eos_token_id must be a list"),
        ({"eos_token_id": 99}, ValueError, "eos_token_ids contains 99"),
        ({"pad_token_id": -1}, ValueError, r"pad_token_id must be an integer in \[0, .* got -1"),
        ({"pad_token_id": 10**30}, ValueError, r"pad_token_id must be an integer in \[0, "),
        ({"return_dict_in_generate": "no"}, TypeError, "return_dict_in_generate must be true or false, got 'no'"),
        ({"min_new_tokens": 12, "block_length": 8}, ValueError, r"min_new_tokens must be .* \[0, 8\], got 12"),
        ({"input_ids": None}, TypeError, "input_ids must be an int64 tensor"),
        ({"input_ids": IDS.int()}, TypeError, "input_ids must be an int64 tensor of shape .*torch.int32"),
        ({"input_ids": IDS[0]}, TypeError, r"input_ids must be .* got torch.int64 \(3,\)"),
        ({"input_ids": IDS[:, :0]}, ValueError, "input_ids must hold at least one token"),
        ({"input_ids": torch.tensor([[1, MASK]])}, ValueError, r"prompts\[0\] contains the mask id"),
        ({"attention_mask": torch.ones(1, 2)}, ValueError, r"attention_mask must have input_ids' shape, \(1, 3\)"),
        ({"attention_mask": torch.tensor([[1, 0, 1]])}, ValueError, r"attention_mask .*got \[1, 0, 1\] in row 0"),
        ({"attention_mask": torch.tensor([[2, 2, 2]])}, ValueError, "attention_mask must be 1 for the tokens"),
        ({"attention_mask": torch.zeros(1, 3)}, ValueError, "attention_mask must be 1 for the tokens"),
        ({"input_ids": TWO, "pad_token_id": 4}, ValueError, "attention_mask is None, and row 1 of input_ids"),
        ({"input_ids": TWO, "streamer": Recorder()}, ValueError, "streamer: expected input_ids of one row .* got 2"),
    ],
)
def test_what_is_wrong_is_named_before_any_work(options, error, message):
    model = MixingModel()
    with pytest.raises(error, match=message):
        generate(model, **{"input_ids": IDS, "max_new_tokens": 8} | options)
    assert model.calls == []
