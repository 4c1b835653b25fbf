"""Log-likelihoods against the bound itself: every mask, one at a time, in float64."""

import itertools
import math

import pytest
import torch
from every_family import every_family, write
from tiny_models import tiny_model

from tad_ext import load_model
from tad_ext.evaluation import are_greedy, likelihood, log_likelihoods

ANSWER = [5, 3, 5]
PAIRS = [([1, 2], ANSWER), ([7], [4]), ([1, 2, 3, 4], [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]), ([3], [])]


@pytest.fixture(scope="module")
def model():
    return tiny_model(initializer_range=0.5)


def bound(model, prompt, answer, guidance=0.0):
    """The expectation over the number of masks, and over the masks of each number, written out."""
    mask, length = model.config.mask_token_id, len(answer)

    def log_probabilities(columns):
        masked = [mask if column in columns else token for column, token in enumerate(answer)]
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *masked]])).logits[0].double()
            if guidance:
                without = model(torch.tensor([[mask] * len(prompt) + masked])).logits[0].double()
                logits = without + (guidance + 1) * (logits - without)
        rows = logits[len(prompt) :].log_softmax(-1)
        return sum(rows[column, answer[column]].item() for column in columns)

    means = []
    for count in range(1, length + 1):
        choices = list(itertools.combinations(range(length), count))
        means.append(math.fsum(length / count * log_probabilities(columns) for columns in choices) / len(choices))
    return math.fsum(means) / length


def one(model, pair, **settings):
    return dict(log_likelihoods(model, [pair], **settings))[0]


@every_family
def test_with_no_more_masks_than_are_drawn_it_is_the_expectation(family, tmp_path):
    model = load_model(write(family, tmp_path / "model"), device="cpu")
    for pair in (([4], [5, 3, 4]), ([3], [4])):  # of one block
        assert one(model, pair, mc_num=7) == pytest.approx(bound(model, *pair), rel=1e-5)


def test_of_a_block_causal_model_it_is_the_sum_of_blocks_behind_finished_ones():
    """Answers of 5 tokens behind prompts of 2 and 3, in blocks of 4: the last 3, or 4, are of another block."""
    model = tiny_model(initializer_range=0.5, causal_block_length=4)
    for prompt in ([1, 2], [1, 2, 9]):
        answer, own = [5, 3, 5, 8, 7], 4 - len(prompt)
        blocks = ((prompt, answer[:own]), ([*prompt, *answer[:own]], answer[own:]))
        expected = sum(bound(model, *block) for block in blocks)
        assert one(model, (prompt, answer), mc_num=31) == pytest.approx(expected, rel=1e-5)
        assert bound(model, prompt, answer) != pytest.approx(expected, rel=1e-3)  # behind masked ones


def test_the_mean_over_seeds_is_the_expectation(model):
    """Two masks of a possible seven, by 400 seeds: the mean is within four standard errors."""
    estimates = torch.tensor([one(model, PAIRS[0], mc_num=2, seed=seed) for seed in range(400)]).double()
    error = estimates.std() / len(estimates) ** 0.5
    expected = bound(model, *PAIRS[0])
    assert 0 < error < abs(expected) / 10
    assert abs(estimates.mean() - expected) < 4 * error


def test_masks_are_spread_over_all_counts():
    """As many masks as a multiple of the length: each count as often, and each mask's weight its own."""
    drawn = list(likelihood._masked(0, ([1], list(range(10))), 40, seed=3))
    shares = {count: 0.0 for count in range(1, 11)}
    for masked in drawn:
        shares[len(masked.columns)] += masked.weight * len(masked.columns) / 10
    assert shares == pytest.approx(dict.fromkeys(range(1, 11), 1 / 10))


def test_it_depends_on_the_seed_and_on_no_batch(model):
    expected = {number: one(model, pair, mc_num=16) for number, pair in enumerate(PAIRS)}
    for batch_size in (1, 5, 64):
        found = dict(log_likelihoods(model, PAIRS, mc_num=16, batch_size=batch_size))
        assert found == pytest.approx(expected, rel=1e-5)
    backwards = dict(log_likelihoods(model, PAIRS[::-1], mc_num=16))
    assert {3 - number: value for number, value in backwards.items()} == pytest.approx(expected, rel=1e-5)
    assert one(model, PAIRS[2], mc_num=16) == one(model, PAIRS[2], mc_num=16)
    assert one(model, PAIRS[2], mc_num=16, seed=1) != pytest.approx(expected[2], rel=1e-3)
    assert expected[3] == 0


def test_guidance(model):
    assert one(model, PAIRS[0], guidance=0.7) == pytest.approx(bound(model, *PAIRS[0], guidance=0.7), rel=1e-5)


def test_logits_are_made_of_masked_tokens_alone_and_of_few_at_a_time(model, monkeypatch):
    expected = dict(log_likelihoods(model, PAIRS, mc_num=16))
    monkeypatch.setattr(likelihood, "_ROWS", 8)
    rows = []
    hook = model.lm_head.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    try:
        found = dict(log_likelihoods(model, PAIRS, mc_num=16))
    finally:
        hook.remove()
    masked = [one for number, pair in enumerate(PAIRS) for one in likelihood._masked(number, pair, 16, 0)]
    assert sum(rows) == sum(len(one.columns) for one in masked)
    assert max(rows) == 8
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_pair_is_told_as_soon_as_it_is_finished(model):
    batches = []
    hook = model.lm_head.register_forward_hook(lambda *_: batches.append(1))
    try:
        for finished, _ in enumerate(log_likelihoods(model, PAIRS[:3], mc_num=16, batch_size=4)):
            assert len(batches) == (4, 6, 6)[finished]  # 15 different masks, 7 and 1, in batches of 4
    finally:
        hook.remove()


def test_the_model_keeps_its_mode(model):
    model.train()
    try:
        one(model, PAIRS[0])
        assert model.training
    finally:
        model.eval()


def test_a_pair_that_is_too_long_is_named(model):
    with pytest.raises(ValueError, match=r"^pairs\[1\] has 127 \+ 2 tokens, more than .* of 128$"):
        log_likelihoods(model, [([1], [2]), ([1] * 127, [2, 3])])


@pytest.mark.parametrize(
    ("pair", "settings", "message"),
    [
        (([1], [2]), {"mc_num": 0}, "mc_num must be .* got 0"),
        (([1], [2]), {"batch_size": 0}, "batch_size must be .* got 0"),
        (([1], [2]), {"guidance": -1.0}, "guidance must be .* got -1.0"),
        (([1], [2]), {"seed": -1}, "seed must be .* got -1"),
        (([1], [2, -1]), {}, r"pairs\[0\] contains -1: expected ids in"),
        (([10**6], [2]), {}, r"pairs\[0\] contains 1000000: expected ids in"),
    ],
)
def test_what_is_wrong_is_named_before_any_work(model, pair, settings, message):
    with pytest.raises(ValueError, match=message):
        log_likelihoods(model, [pair], **settings)


def test_the_mask_is_no_part_of_a_pair(model):
    mask = model.config.mask_token_id
    for call in (log_likelihoods, are_greedy):
        for pair in (([1, mask], [2]), ([1], [mask])):
            with pytest.raises(ValueError, match=rf"pairs\[0\] contains {mask}: .* but for {mask}, the mask"):
                call(model, [pair])
    with pytest.raises(ValueError, match=r"pairs\[1\] has an empty prompt"):
        are_greedy(model, [([], []), ([], [2])])


def greedy_answer(model, prompt, length):
    """LLaDA's rule for one sequence: again and again the most confident masked position's best token."""
    tokens = [*prompt, *[model.config.mask_token_id] * length]
    for _ in range(length):
        with torch.no_grad():
            probabilities = model(torch.tensor([tokens])).logits[0].double().softmax(-1)
        probabilities[:, model.config.mask_token_id] = 0
        masked = [place for place, token in enumerate(tokens) if token == model.config.mask_token_id]
        best = max(masked, key=lambda place: probabilities[place].max().item())
        tokens[best] = int(probabilities[best].argmax())
    return tokens[len(prompt) :]


def test_the_greedy_answer_is_known(model):
    prompts = [[first, second] for first in range(4) for second in range(4)]
    right = [(prompt, greedy_answer(model, prompt, 1 + number % 8)) for number, prompt in enumerate(prompts)]
    wrong = [(prompt, [*answer[:-1], (answer[-1] + 1) % 20]) for prompt, answer in right]
    found = are_greedy(model, [*right, *wrong, ([3], [])], batch_size=5)
    assert found == [True] * len(right) + [False] * len(wrong) + [True]
