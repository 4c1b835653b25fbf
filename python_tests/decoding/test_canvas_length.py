"""Policies that choose the canvas's length: rows worked by hand, what moves, and what is refused."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from python_tests.decoding.conftest import EOS, MASK, RAGGED, VOCABULARY, FakeModel, random_transformer
from tad_ext.decoding import DAEDAL, DecodeConfig, RhoEOS, decode
from tad_ext.decoding.generation import generate

RHO = DecodeConfig(gen_length=16, block_length=16, policy=RhoEOS(initial=4, block=4, unit=1), stop_at_eos=False)
DAEDALUS = DecodeConfig(gen_length=24, block_length=4, policy=DAEDAL(initial=2, masks=2, watched=2), stop_at_eos=False)


class ByLength(FakeModel):
    """Behind a prompt of one token: `says(canvas length)` gives the token and its probability for each column."""

    def __init__(self, says):
        super().__init__()
        self.says = says

    def row_logits(self, tokens):
        said = self.says(len(tokens) - 1)
        probability = torch.full((len(tokens), VOCABULARY), 1 / VOCABULARY)
        for column, (token, confidence) in enumerate(said, start=1):
            probability[column] = (1 - confidence) / (VOCABULARY - 1)
            probability[column, token] = confidence
        return probability.log()


@pytest.fixture
def by_length(device):
    return type("ByLength", (ByLength,), {"device": torch.device(device)})


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [("exp", [8, 8, 16, 32, 32, 64, 64]), ("linear", [8, 8, 16, 24, 24, 32, 48]), ("const", [8] * 7)],
)
def test_steps_by_tenths_beyond_the_bound(schedule, steps):
    gaps = torch.tensor([0.01, 0.1, 0.11, 0.3, 0.7 - 0.4, 0.4, 0.6], dtype=torch.float64)
    assert RhoEOS(schedule=schedule)._step(gaps).tolist() == steps


def test_no_predicted_end_makes_the_canvas_longer(by_length):
    result = decode(by_length(lambda length: [(1, 0.95)] * length), [[1]], RHO)
    assert result.reveal_step.tolist() == [[1] * 4 + [2] * 4 + [3] * 4 + [4] * 4]
    result = decode(
        by_length(lambda length: [(1, 0.95)] * length), [[1]], replace(RHO, policy="rho-eos:initial=9,adjustments=0")
    )
    assert result.canvases() == [[1] * 9]


def test_masks_come_in_before_the_first_end(by_length):
    model = by_length(lambda length: [(2, 0.95), (EOS if length == 4 else 3, 0.95), *[(4, 0.95)] * (length - 2)])
    once = replace(RHO, policy=replace(RHO.policy, adjustments=1))
    result = decode(model, [[1]], once)  # a quarter of the masks: 0.15 below the bound
    assert result.canvases() == [[2, 3, 4, EOS, 4, 4]]
    assert result.reveal_step[0, :6].tolist() == [1, 2, 2, 1, 1, 1]
    assert result.response_lengths.tolist() == [4]
    ended = decode(model, [[1]], replace(once, stop_at_eos=True))
    assert (ended.canvases(), ended.forwards.tolist()) == ([[2, EOS, EOS, EOS]], [1])


def test_a_canvas_that_is_cut_to_nothing_is_an_empty_response(by_length):
    model = by_length(lambda length: [(EOS, 0.8)] * length)
    result = decode(model, [[1], [2]], RHO)
    assert result.canvases() == result.responses() == [[], []]
    assert result.forwards.tolist() == [1, 1]
    assert result.response_lengths.tolist() == result.tokens_per_forward.tolist() == [0, 0]
    streamer = Streamer()
    found = generate(model, torch.tensor([[1]]), decoding=RHO, max_new_tokens=16, streamer=streamer)
    assert found.tolist() == [[1]]
    assert streamer.tokens == [1]


def test_daedal(by_length):
    def says(length):
        ends = [(EOS, 0.6 if length == 7 else 0.95)] * 2 if length > 5 else []
        said = [(1 + i, 0.95) for i in range(length - len(ends))] + ends
        if length == 7:
            said[1], said[2] = (2, 0.05), (3, 0.04)
        return said

    # Forwards 1 to 3 measure 2, 4 and 6 columns. Of the end there is one more. Column 2 becomes two.
    result = decode(by_length(says), [[1]], DAEDALUS)
    assert result.forwards.tolist() == [6]
    assert result.reveal_step[0, :8].tolist() == [4, 5, 5, 5, 4, 6, 6, 0]
    assert result.canvases() == [[1, 2, 3, 4, 4, 6, EOS, EOS]]
    assert result.tokens_per_forward.tolist() == [pytest.approx(7 / 6)]


class Streamer:
    def __init__(self):
        self.tokens = []

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        pass


@pytest.mark.parametrize(
    "text", ["rho-eos:initial=9,unit=1,threshold=0.4", "rho-eos:initial=3,unit=2,low=0.2,high=0.3,threshold=0.4"]
)
def test_a_streamer_is_given_what_is_left_at_the_end(mixing_model, text):
    settings = replace(RHO, policy=text, eos_token_ids=(EOS, 1, 3, 5))
    for prompt in RAGGED[:3]:
        streamer, ids = Streamer(), torch.tensor([prompt])
        found = generate(mixing_model(), ids, decoding=settings, max_new_tokens=16, streamer=streamer)
        assert streamer.tokens == found[0].tolist()


def test_tokens_that_move_keep_their_reveal_step(mixing_model):
    policy = DAEDAL(0.4, low=0.3, enough=0.15, full=0.9, watched=4, masks=2, initial=4)
    seen, moved = [], 0

    def watch(_, canvas, steps):
        seen.append([(token, step) for token, step in zip(canvas[0].tolist(), steps[0].tolist(), strict=True) if step])

    for prompt in RAGGED:
        seen.clear()
        config = replace(DAEDALUS, gen_length=48, policy=policy)
        result = decode(mixing_model(), [prompt], config, watch=watch)
        assert len(seen) == result.forwards[0]
        for number, (before, after) in enumerate(pairwise(seen), start=1):
            assert [one for one in after if one[1] <= number] == before
        moved += result.reveal_step[0].tolist() != sorted(result.reveal_step[0].tolist())
    assert moved


@pytest.mark.parametrize(
    "text",
    ["rho-eos:threshold=0.4,initial=6,unit=1", "daedal:threshold=0.4,low=0.3,enough=0.1,watched=4,masks=2,initial=3"],
)
def test_samples_do_not_depend_on_the_batch(mixing_model, device, text):
    config = DecodeConfig(
        gen_length=16, block_length=4, policy=text, temperature=1.0, top_p=0.9, eos_token_ids=(EOS, 1, 3)
    )
    for model in (mixing_model(), random_transformer("llada", 1, device), random_transformer("dream", 2, device)):
        alone, together = (decode(model, RAGGED, replace(config, batch_size=size)) for size in (1, 3))
        assert alone.sequences == together.sequences
        assert torch.equal(alone.reveal_step, together.reveal_step)
        assert len(set(map(len, alone.canvases()))) > 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache": "dual"}, "cache is dual, and policy .* changes the canvas's length: expected None"),
        ({"block_causal": True}, "block_causal is True, and policy"),
        ({"hide_future_blocks": True}, "hide_future_blocks is True, and policy"),
        ({"infill": True}, "infill is True, and policy"),
        ({"guidance": 1.0}, "guidance is 1.0, and policy"),
        ({"min_length": 3}, "min_length is 3, and policy .* expected 0"),
        ({"sync_every": 2}, "sync_every is 2, and policy .* expected 1"),
        ({"drafts": 4}, "drafts is 4, and policy .* changes the canvas's length: expected 1"),
        ({"cuda_graphs": True}, "cuda_graphs is True, and policy .* expected auto or false"),
    ],
)
@pytest.mark.parametrize("config", [RHO, DAEDALUS], ids=["rho-eos", "daedal"])
def test_what_does_not_go_with_it_is_refused(config, changes, message):
    with pytest.raises(ValueError, match=message):
        replace(config, **changes)


def test_models_and_prompts_are_checked_before_any_work(mixing_model):
    model = mixing_model()
    with pytest.raises(ValueError, match=r"policy daedal.* predicted ends .* eos_token_ids is empty"):
        decode(model, [[1]], replace(DAEDALUS, eos_token_ids=()))
    with pytest.raises(ValueError, match="50 tokens and gen_length is 16: together 66"):
        decode(model, [[1] * 50], RHO)
    model.config.causal_block_length = 4
    with pytest.raises(ValueError, match=r"policy rho-eos.* the model attends to blocks of 4"):
        decode(model, [[1]], RHO)
    assert not model.calls


class Grows:
    """A policy of one's own, which waits for one forward."""

    sees, initial = "masks", 2

    def __call__(self, statistics, state):
        return -state.positions.float(), state.eligible

    def waits(self, state):
        return state.forwards == 0

    def resize(self, statistics, state, canvas, lengths):
        return lengths + 2 * (state.forwards == 1), lengths, 2 * (state.forwards == 1)


def test_a_policy_of_ones_own(mixing_model):
    result = decode(mixing_model(), RAGGED[:3], replace(RHO, policy=Grows()))
    assert [len(canvas) for canvas in result.canvases()] == [4] * 3
    assert result.reveal_step[:, :4].unique().tolist() == [2]
    assert all(MASK not in canvas for canvas in result.canvases())

    for name, answer, message in (
        ("waits", lambda state: state.forwards, r"waits must return torch.bool of shape \(1,\)"),
        ("resize", lambda *arguments: arguments[-1], r"resize must return \(length, place, count\)"),
        ("resize", lambda *arguments: (arguments[-1].float(),) * 3, r"resize must return torch.int64 of shape \(1,\)"),
    ):
        wrong = Grows()
        setattr(wrong, name, answer)
        with pytest.raises(TypeError, match=message):
            decode(mixing_model(), [[1]], replace(RHO, policy=wrong))
    for name, value in (("revise", lambda statistics, state: None), ("verifies", True)):
        both = Grows()
        both.sees = "block"
        setattr(both, name, value)
        with pytest.raises(ValueError, match=f"both resize and {name}: expected one of them"):
            replace(RHO, policy=both)
