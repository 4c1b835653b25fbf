"""Truncated sampling, guidance, lengths and stop strings, against what their definitions say."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad_ext.decoding import DecodeConfig, TopK, decode
from tad_ext.ops import truncate_logits

MASK, EOS, UNUSED = 10, 9, 11
ONE_TOKEN = DecodeConfig(gen_length=1, block_length=1, temperature=1.0, batch_size=400, stop_at_eos=False)


def allowed(logits, temperature=1.0, top_k=None, top_p=1.0):
    kept = truncate_logits(torch.tensor([logits]), temperature=temperature, top_k=top_k, top_p=top_p)[0]
    assert all(new in (old, -torch.inf) for new, old in zip(kept.tolist(), logits, strict=True))
    return (kept > -torch.inf).nonzero()[:, 0].tolist()


def test_truncation_by_hand():
    logits = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().tolist()
    assert allowed(logits, top_k=1) == [1]
    assert allowed(logits, top_k=3) == [1, 2, 3]
    assert allowed(logits, top_k=9) == [0, 1, 2, 3]
    assert allowed(logits, top_p=0.39) == [1]
    assert allowed(logits, top_p=0.41) == [1, 3]
    assert allowed(logits, top_p=0.71) == [1, 2, 3]
    assert allowed(logits, top_p=1e-9) == [1]
    # Among the best two, 0.4 and 0.3 are 0.57 and 0.43.
    assert allowed(logits, top_k=2, top_p=0.5) == [1]
    assert allowed(logits, top_k=2, top_p=0.6) == [1, 3]
    # At temperature 1/2 they are in proportion to 1, 16, 4, 9: 0.53 and 0.83 are the best one and the best two.
    assert allowed(logits, temperature=0.5, top_p=0.5) == [1]
    assert allowed(logits, temperature=0.5, top_p=0.8) == [1, 3]


def test_ties_with_the_last_one_taken_stay():
    assert allowed([1.0, 2.0, 1.0, 0.0], top_k=2) == [0, 1, 2]
    assert allowed([0.0, 0.0, 0.0], top_p=0.5) == [0, 1, 2]


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=30),
    st.floats(0.01, 0.999),
    st.floats(0.2, 3),
    st.none() | st.integers(1, 40),
)
def test_the_nucleus_is_the_smallest_that_suffices(logits, top_p, temperature, top_k):
    kept = allowed(logits, temperature, top_k, top_p)
    x = torch.tensor(logits).double() / temperature
    if top_k is not None and top_k < len(logits):
        x = x.masked_fill(x < x.sort(descending=True).values[top_k - 1], -torch.inf)
    p = x.softmax(-1)
    assert p[kept].sum() > top_p - 1e-5
    least = p[kept].min()
    above = [i for i in kept if p[i] > least]
    assert p[above].sum() < top_p + 1e-5
    assert all(p[i] <= least for i in range(len(logits)) if i not in kept)


def test_only_allowed_tokens_are_drawn(scripted_model):
    """p = 0.3 for token 4, 0.0636 for each other: the best one alone, or everything."""
    model = scripted_model([0.3], tokens=[4])

    def drawn(**options):
        return Counter(canvas[0] for canvas in decode(model, [[1]] * 400, replace(ONE_TOKEN, **options)).canvases())

    assert set(drawn()) == set(range(10))
    assert drawn(top_k=1) == drawn(top_p=0.25) == {4: 400}
    assert drawn(top_k=12, top_p=1.0) == drawn(), "the same noise, and nothing left out"


def test_confidence_is_that_of_the_whole_distribution(scripted_model):
    seen = []

    def policy(statistics, state):
        seen.append((statistics.token.item(), statistics.confidence.item()))
        return TopK(1)(statistics, state)

    config = replace(ONE_TOKEN, policy=policy, top_k=1)
    decode(scripted_model([0.3], tokens=[4]), [[1]], config)
    assert seen == [(4, pytest.approx(0.3, abs=1e-6))]


def test_suppressed_tokens_take_no_place_among_the_best(scripted_model):
    """The mask is the most probable token, and top_k = 1 means the best that may be chosen."""
    config = replace(ONE_TOKEN, top_k=1, top_p=0.999)
    result = decode(scripted_model([0.9], tokens=[MASK]), [[1]] * 400, config)
    assert {canvas[0] for canvas in result.canvases()} == set(range(10)), "the others tie"


def test_guidance_is_the_published_combination(mixing_model, device):
    """With one position and one forward: argmax of u + (w + 1) (c - u), u with the prompt masked."""
    model, prompt = mixing_model(), [1, 2, 3]
    c = model.row_logits(torch.tensor([*prompt, MASK]))[3]
    u = model.row_logits(torch.tensor([MASK] * 4))[3]
    tokens = set()
    for guidance in (0.0, 1.0, 4.0, 30.0):
        combined = u + (guidance + 1) * (c - u)
        combined[[MASK, UNUSED]] = -torch.inf
        config = DecodeConfig(gen_length=1, block_length=1, guidance=guidance)
        assert decode(model, [prompt], config).canvases() == [[combined.argmax().item()]]
        tokens.add(combined.argmax().item())
    assert len(tokens) > 1


def test_guidance_keeps_impossible_tokens_impossible(mixing_model):
    class Model(mixing_model):
        def row_logits(self, tokens):
            return super().row_logits(tokens).index_fill(1, torch.tensor([0, 1, 2, 3]), -torch.inf)

    result = decode(Model(), [[1, 2]], DecodeConfig(gen_length=8, block_length=4, guidance=2.0, stop_at_eos=False))
    assert min(result.canvases()[0]) > 3


def test_a_row_in_which_nothing_is_possible_has_confidence_0(mixing_model):
    class Model(mixing_model):
        def row_logits(self, tokens):
            return torch.full((len(tokens), 12), -torch.inf)

    seen = []

    def policy(statistics, state):
        seen.append(statistics.confidence.item())
        return TopK(1)(statistics, state)

    decode(Model(), [[1]], replace(ONE_TOKEN, policy=policy, top_k=3))
    assert seen == [0]


def test_minimum_length_leaves_the_models_own_logits_alone(scripted_model):
    class Model(scripted_model):
        def __call__(self, *arguments, **options):
            output = super().__call__(*arguments, **options)
            given.append((output.logits, output.logits.clone()))
            return output

    given = []
    decode(Model([0.9] * 4, tokens=[EOS] * 4), [[1]], DecodeConfig(gen_length=4, block_length=4, min_length=3))
    assert all(torch.equal(logits, before) for logits, before in given)


def test_guidance_leaves_the_batch_alone(mixing_model):
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 0, 1, 2], [3, 3]]
    config = DecodeConfig(gen_length=8, block_length=4, guidance=1.5)
    model = mixing_model()
    result = decode(model, prompts, config)
    assert len(model.calls) == 2 * max(result.forwards)
    assert decode(mixing_model(), prompts, replace(config, batch_size=1)).sequences == result.sequences


def test_minimum_length(scripted_model):
    model = scripted_model([0.9] * 8, tokens=[EOS] * 8)
    config = DecodeConfig(gen_length=8, block_length=4)
    assert decode(model, [[1]], config).response_lengths.tolist() == [1]
    for length in (1, 5, 8):
        result = decode(model, [[1]], replace(config, min_length=length))
        assert result.response_lengths.tolist() == [min(length + 1, 8)]
        assert EOS not in result.canvases()[0][:length]


class Letters:
    """Token i is the letter i from "a"."""

    def decode(self, tokens, skip_special_tokens):
        assert skip_special_tokens
        return "".join(chr(ord("a") + token) for token in tokens)


def test_stop_strings(scripted_model):
    # The text is "bcdefghi"; the second half is revealed first.
    model = scripted_model([0.5, 0.4, 0.3, 0.2, 0.9, 0.8, 0.7, 0.6], tokens=[1, 2, 3, 4, 5, 6, 7, 8])
    config = DecodeConfig(gen_length=8, block_length=8, stop_strings=["xyz", "de"])
    result = decode(model, [[1]], config, tokenizer=Letters())
    assert result.canvases() == [[1, 2, 3, 4, EOS, EOS, EOS, EOS]]
    assert result.reveal_step.tolist() == [[5, 6, 7, 8, 8, 8, 8, 8]]
    assert result.response_lengths.tolist() == [4]
    assert result.responses() == [[1, 2, 3, 4]]
    assert result.forwards.tolist() == [8]
    # From left to right it is finished as soon as it stands there.
    model = scripted_model([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2], tokens=[1, 2, 3, 4, 5, 6, 7, 8])
    result = decode(model, [[1], [2]], config, tokenizer=Letters())
    assert result.forwards.tolist() == [4, 4]
    assert result.canvases() == [[1, 2, 3, 4, EOS, EOS, EOS, EOS]] * 2
    # A text that never comes, and one behind the end of the sequence.
    other = decode(model, [[1]], replace(config, stop_strings=["q"]), tokenizer=Letters())
    assert other.canvases() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    model = scripted_model([0.9] * 8, tokens=[1, EOS, 3, 4, 5, 6, 7, 8])
    behind = decode(model, [[1]], replace(config, stop_at_eos=False), tokenizer=Letters())
    assert behind.canvases() == [[1, EOS, 3, 4, 5, 6, 7, 8]]


@settings(deadline=None)
@given(st.lists(st.integers(0, 8), min_size=8, max_size=8), st.text("abc", min_size=1, max_size=3))
def test_a_response_is_the_shortest_that_contains_the_text(scripted_model_once, tokens, text):
    model = scripted_model_once([0.3 + 0.05 * column for column in range(8)], tokens=tokens)  # the first comes last
    config = DecodeConfig(gen_length=8, block_length=8, stop_strings=[text])
    result = decode(model, [[1]], config, tokenizer=Letters())
    whole = Letters().decode(tokens, skip_special_tokens=True)
    expected = 8 if text not in whole else whole.index(text) + len(text)
    assert result.response_lengths.tolist() == [expected]
    assert result.responses()[0] == tokens[:expected]


@pytest.fixture(scope="module")
def scripted_model_once():
    from python_tests.decoding.conftest import ScriptedModel

    return ScriptedModel


def test_bad_settings(mixing_model):
    for name, value, expected in (
        ("top_k", 0, "top_k must be an integer in .* got 0"),
        ("top_p", 0.0, r"top_p must be a finite number in \(0, 1\], got 0"),
        ("top_p", 1.1, r"top_p must be a finite number in \(0, 1\], got 1.1"),
        ("min_length", 2, "min_length must be at most gen_length, 1, got 2"),
        ("guidance", -1.0, r"guidance must be a finite number in \[0, 1000000\], got -1"),
    ):
        with pytest.raises(ValueError, match=expected):
            replace(ONE_TOKEN, **{name: value})
    with pytest.raises(ValueError, match="top_k is 5 and temperature is 0"):
        DecodeConfig(gen_length=1, block_length=1, top_k=5)
    with pytest.raises(TypeError, match=r"stop_strings must be a list, each entry text .*, got 'end'"):
        replace(ONE_TOKEN, stop_strings="end")
    with pytest.raises(ValueError, match="at least one character, got ''"):
        replace(ONE_TOKEN, stop_strings=[""])
    with pytest.raises(ValueError, match="tokenizer is None: expected one that reads stop_strings"):
        decode(mixing_model(), [[1]], replace(ONE_TOKEN, stop_strings=["end"]))
    model = mixing_model()
    model.config.eos_token_ids = []
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        decode(model, [[1]], replace(ONE_TOKEN, stop_strings=["end"]), tokenizer=Letters())
