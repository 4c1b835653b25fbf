"""A plain function is a policy, and its mistakes are named."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

import tad_ext
from python_tests.decoding.conftest import RAGGED
from tad_ext.decoding import (
    ConfidenceFactor,
    ConfidenceThreshold,
    DecodeConfig,
    EntropyBudget,
    EntropyThreshold,
    MarginThreshold,
    TopK,
    decode,
)
from tad_ext.decoding.policies import MASKED_AGAIN
from tad_ext.decoding.policies.by_selection import selection_of
from tad_ext.decoding.policies.checking import checked
from tad_ext.ops import Selection
from tad_ext.settings import Count


def left_to_right(statistics, state):
    """Always the lowest eligible position, as an autoregressive model would."""
    return -state.positions.float(), torch.zeros_like(state.eligible)


def config(policy):
    return DecodeConfig(gen_length=6, block_length=3, policy=policy, stop_at_eos=False)


def test_a_function_is_a_policy(mixing_model):
    result = decode(mixing_model(), [[1], [2, 3]], config(left_to_right))
    assert result.reveal_step.tolist() == [[1, 2, 3, 4, 5, 6]] * 2


def test_the_example_of_the_documentation(scripted_model):
    def margin_above_half(statistics, state):
        return statistics.margin, statistics.margin > 0.5

    # The margin is about p - (1 - p) / 11: above one half from p = 0.55 on.
    result = decode(scripted_model([0.5, 0.6, 0.4, 0.9, 0.9, 0.3]), [[1]], config(margin_above_half))
    assert result.reveal_step.tolist() == [[2, 1, 3, 4, 4, 5]]


def test_the_example_of_the_readme(mixing_model):
    readme = Path(__file__).resolve().parents[2] / "README.md"
    example = readme.read_text().partition("def far_apart")[2].partition("```")[0]
    names = {"tad_ext": tad_ext}
    exec("def far_apart" + example, names)
    result = decode(mixing_model(), [[1], [2, 3]], replace(names["config"], gen_length=8, block_length=4))
    assert (result.reveal_step > 0).all()


@pytest.mark.parametrize(
    "policy",
    [
        TopK(2),
        ConfidenceThreshold(0.3),
        ConfidenceFactor(1.2),
        MarginThreshold(0.1),
        EntropyThreshold(1.5),
        EntropyBudget(2.0),
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_a_kernel_chooses_is_what_the_policy_chooses(transformer, policy, temperature):
    def in_between(statistics, state):
        return policy(statistics, state)

    settings = replace(config(policy), block_add_threshold=0.5, temperature=temperature, batch_size=2)
    expected = decode(transformer, RAGGED, replace(settings, policy=in_between))
    result = decode(transformer, RAGGED, settings)
    assert result.sequences == expected.sequences
    assert torch.equal(result.reveal_step, expected.reveal_step)


@pytest.mark.usefixtures("registry")
def test_subclasses_of_a_policy_that_a_kernel_applies(transformer):
    @dataclass(frozen=True)
    class Top2(TopK, name="top2-of-a-test", rule="two", source="a test"):
        k: Count = 2
        unused: Count = 1

    @dataclass(frozen=True)
    class Backwards(TopK, name="backwards-of-a-test", rule="the last position", source="a test"):
        def __call__(self, statistics, state):
            score, accept = super().__call__(statistics, state)
            return state.positions.to(score.dtype), torch.zeros_like(accept)

    assert selection_of(Top2()) == Selection("topk", 2)
    assert selection_of(Backwards()) is None
    two = decode(transformer, RAGGED, config(TopK(2)))
    assert torch.equal(decode(transformer, RAGGED, config(Top2())).reveal_step, two.reveal_step)
    last = decode(transformer, [[1]], config(Backwards()))
    assert last.reveal_step.tolist() == [[3, 2, 1, 6, 5, 4]]


def test_a_policy_with_an_attribute_of_that_name_is_asked(mixing_model):
    class Mine:
        selection = Selection("topk", 6)

        def __call__(self, statistics, state):
            return left_to_right(statistics, state)

    result = decode(mixing_model(), [[1]], config(Mine()))
    assert result.reveal_step.tolist() == [[1, 2, 3, 4, 5, 6]]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_positions_that_a_policy_keeps_stay_as_they_are(mixing_model, batch_size):
    kept = []

    def keeps(statistics, state):
        kept.append((state.positions, state.positions.clone()))
        return left_to_right(statistics, state)

    decode(mixing_model(), [[1], [2, 3], [4]], replace(config(keeps), batch_size=batch_size))
    assert all(torch.equal(now, then) for now, then in kept)


def test_a_model_may_name_its_device(mixing_model):
    class Model:
        def __init__(self, model):
            self.config, self.device, self.model = model.config, str(model.device), model

        def __call__(self, *arguments, **options):
            return self.model(*arguments, **options)

    result = decode(Model(mixing_model()), [[1]], config(left_to_right))
    assert result.reveal_step.tolist() == [[1, 2, 3, 4, 5, 6]]


class SeesTheLogits:
    """Bans token 3, through the logits."""

    def prepare(self, logits, state):
        assert logits.shape[0] == state.positions.numel()
        banned = torch.arange(logits.shape[1], device=logits.device) == 3
        return logits.masked_fill(banned, -1e9)

    def __call__(self, statistics, state):
        return left_to_right(statistics, state)


def test_a_policy_may_change_the_logits(mixing_model):
    prompts = [[1], [2, 3], [4]]
    plain = decode(mixing_model(), prompts, config(left_to_right)).responses()
    assert any(3 in response for response in plain)
    assert not any(3 in response for response in decode(mixing_model(), prompts, config(SeesTheLogits())).responses())


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda logits: None, TypeError, "prepare must return logits, a floating-point tensor"),
        (lambda logits: logits.long(), TypeError, "prepare must return logits, a floating-point tensor"),
        (lambda logits: logits[1:], ValueError, r"prepare must return logits of shape \(4, 5\), got \(3, 5\)"),
    ],
)
def test_wrong_logits_are_named(answer, error, message):
    policy = SeesTheLogits()
    policy.prepare = lambda logits, state: answer(logits)
    with pytest.raises(error, match=message):
        checked(policy).prepare(torch.zeros(4, 5), None)
    assert not hasattr(checked(left_to_right), "prepare")


def test_accepting_what_is_not_eligible_changes_nothing(mixing_model):
    def everything(statistics, state):
        score, accept = TopK(1)(statistics, state)
        return score, accept | ~state.eligible

    prompts = [[1], [2, 3]]
    expected = decode(mixing_model(), prompts, config(TopK(1)))
    assert torch.equal(decode(mixing_model(), prompts, config(everything)).reveal_step, expected.reveal_step)


def test_what_a_policy_is_given(mixing_model):
    """One entry per eligible position, ascending; those behind them, where another sequence has more, are padding and
    carry no statistics.
    """
    seen = []

    def policy(statistics, state):
        assert all(part.shape[:2] == state.positions.shape for part in statistics)
        assert torch.equal(statistics.valid, state.eligible)
        seen.append((state.positions.tolist(), state.forwards.tolist(), state.blocks.tolist()))
        score, accept = left_to_right(statistics, state)
        at_once = (state.positions[:, :1] == 0) & (torch.arange(len(accept), device=accept.device) == 1)[:, None]
        return score, accept | (state.eligible & at_once)

    decode(mixing_model(), [[1], [2, 3]], config(policy))
    assert seen == [
        ([[0, 1, 2], [0, 1, 2]], [0, 0], [1, 1]),
        ([[1, 2, -1], [3, 4, 5]], [1, 1], [1, 2]),
        ([[2, -1], [4, 5]], [2, 2], [1, 2]),
        ([[3, 4, 5], [5, -1, -1]], [3, 3], [2, 2]),
        ([[4, 5]], [4], [2]),
        ([[5]], [5], [2]),
    ]


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (lambda s, state: s.confidence, TypeError, "must return a tuple of two tensors"),
        (lambda s, state: (s.confidence, None), TypeError, "must return a tuple of two tensors"),
        (
            lambda s, state: (s.confidence[:, :1], state.eligible),
            ValueError,
            r"score must have shape \(2, 3\), got \(2, 1\)",
        ),
        (
            lambda s, state: (s.confidence, state.eligible[0]),
            ValueError,
            r"accept must have shape \(2, 3\), got \(3,\)",
        ),
        (lambda s, state: (s.token, state.eligible), TypeError, "score must be floating point, got torch.int64"),
        (lambda s, state: (s.confidence, s.confidence), TypeError, "accept must be bool, got torch.float32"),
    ],
)
def test_wrong_answers_are_named(mixing_model, answer, error, message):
    with pytest.raises(error, match=message):
        decode(mixing_model(), [[1], [2, 3]], config(answer))


@dataclass(frozen=True)
class SecondThoughts:
    """Reveals everything at once, then changes each token of the block, to the next one, so many times."""

    times: int = 2
    sees = "block"

    def __call__(self, statistics, state):
        return statistics.log_odds, state.eligible

    def revise(self, statistics, state):
        count = state.memory.setdefault("count", torch.zeros_like(state.forwards)[:, None])
        masked = state.eligible.any(dim=-1)
        count.copy_(torch.where(masked, 0, count[:, 0] + 1)[:, None])
        return (state.tokens + 1) % 9, masked | (count[:, 0] < self.times)


@pytest.mark.parametrize("sync_every", [1, 3])
def test_a_policy_that_changes_tokens(mixing_model, sync_every):
    """Each block of three takes one forward to reveal it and two that change it; the prompts come and go."""
    settings = replace(config(SecondThoughts()), sync_every=sync_every, batch_size=2)
    result = decode(mixing_model(), [[1], [2, 3], [4], [5, 6, 7]], settings)
    assert result.forwards.tolist() == [6] * 4
    assert result.reveal_step.tolist() == [[3, 3, 3, 6, 6, 6]] * 4
    fewer = decode(mixing_model(), [[1], [2, 3], [4], [5, 6, 7]], replace(settings, policy=SecondThoughts(1)))
    assert fewer.forwards.tolist() == [4] * 4
    after = [[(token + 1) % 9 for token in canvas[:3]] for canvas in fewer.canvases()]
    assert after == [canvas[:3] for canvas in result.canvases()]


def test_a_policy_that_takes_tokens_back(mixing_model):
    """The first token of each block is a mask again after the second forward, and the third reveals it."""

    class TakesBack(SecondThoughts):
        def revise(self, statistics, state):
            count = state.memory.setdefault("count", torch.zeros_like(state.forwards)[:, None])
            count.copy_(torch.where(state.eligible.all(dim=-1), 1, count[:, 0] + 1)[:, None])
            takes = (torch.arange(3) == 0) & (count == 2)
            return torch.where(takes, MASKED_AGAIN, state.tokens), count[:, 0] < 2

    result = decode(mixing_model(), [[1], [2, 3]], config(TakesBack()))
    assert result.reveal_step.tolist() == [[3, 1, 1, 6, 4, 4]] * 2
    assert result.forwards.tolist() == [6, 6]


def test_mistakes_of_a_policy_that_changes_tokens(mixing_model):
    class Blind:
        sees = "eligible"

        def __call__(self, statistics, state):
            return statistics.log_odds, state.eligible

        def revise(self, statistics, state):
            return state.tokens, state.done

    with pytest.raises(ValueError, match='has a revise method: expected sees = "block"'):
        config(Blind())
    with pytest.raises(ValueError, match=r"sees one block, and block_add_threshold is 0.5: expected 1"):
        replace(config(SecondThoughts()), block_add_threshold=0.5)
    for answer, message in (
        (lambda state: state.tokens, r"revise must return tensors \(tokens, open\)"),
        (
            lambda state: (state.tokens[:, :1], state.done),
            r"tokens must be torch.int64 of shape \(1, 3\), got torch.int64",
        ),
        (lambda state: (state.tokens, state.forwards), r"open must be torch.bool of shape \(1,\), got torch.int64"),
    ):
        wrong = type("Wrong", (SecondThoughts,), {"revise": lambda self, _, state, answer=answer: answer(state)})
        with pytest.raises((TypeError, ValueError), match=message):
            decode(mixing_model(), [[1]], config(wrong()))


def test_what_a_policy_remembers_of_the_state_stays_as_it_was(mixing_model):
    """Memory that was made of a tensor of the state's, which every forward writes to, is a copy."""
    seen = []

    def policy(statistics, state):
        if "before" in state.memory:
            seen.append(state.memory["before"].tolist())
        else:
            state.memory["before"] = state.forwards
        return statistics.confidence, torch.zeros_like(state.eligible)

    decode(mixing_model(), [[1], [2, 3]], config(policy))
    assert seen == [[1, 1]] * 5
