"""WINO: what its published loop decodes, an end within as many forwards as positions, and what it refuses."""

from functools import cache, partial
from itertools import count

import pytest
import torch
from policy_cases import entries
from published import wino

from python_tests.decoding.conftest import EOS, MASK, RAGGED, UNUSED, MixingModel, random_transformer
from tad_ext.decoding import DecodeConfig, Wino, decode, preset
from tad_ext.decoding.policies import MASKED_AGAIN

LENGTH = 16
SETTINGS = [(8, 0.3, 0.5), (16, 0.3, 0.3), (16, 0.0, 1.0), (4, 0.6, 0.9)]  # block length, threshold, keep


def model_of(seed, device):
    model = random_transformer("llada", seed, device)
    model.config.max_position_embeddings = 64
    return model


def at_most(forwards):
    """A view of a decode that ends one which would go on for ever."""
    seen = count(1)

    def watch(*_):
        assert next(seen) <= forwards

    return watch


@cache
def mask_of(length, first, end):
    """Written out: who of a row of `length` and of the masks for its columns [first, end) sees whom."""
    mask = torch.zeros(length + end - first, length + end - first, dtype=torch.bool)
    for query in range(len(mask)):
        for key in range(len(mask)):
            if query < length:
                mask[query, key] = key < length
            else:
                mask[query, key] = key != first + query - length
    return mask


@torch.no_grad()
def with_shadow(model, ids, first, end):
    """The model's trunk asked for both, with a mask and positions that are written out."""
    ids = torch.cat((ids, torch.full((end - first,), MASK))).to(model.device)
    places = torch.tensor([*range(len(ids) - end + first), *range(first, end)], device=model.device)
    mask = mask_of(len(ids) - end + first, first, end).to(model.device)
    trunk = model.model(ids[None], mask[None, None], places[None], None, None, use_cache=False)
    return model.lm_head(trunk.last_hidden_state)[0].cpu()


@pytest.mark.parametrize(("masks", "most"), [(4, 4), (8, 5), (9, 6), (20, 14), (28, 19), (29, 20), (40, 20)])
def test_how_many_are_revealed(masks, most):
    statistics, state = entries([[0.6, *[0.7 + 0.005 * i for i in range(masks - 1)]]])
    score, accept = Wino()(statistics, state)
    assert accept.sum() == min(most, masks - 1)  # 0.6 is not above the threshold
    assert accept[0, -1]
    assert torch.equal(score, statistics.log_odds)


def test_which_are_masked_again():
    """Positions 0 to 3 have tokens of probability 0.5, 0.1, 0.8 and 0.95; 4 to 6 are masks."""
    policy, back = Wino(), MASKED_AGAIN
    statistics, state = entries([[0.5] * 7] * 5)
    probability = torch.tensor([0.5, 0.1, 0.8, 0.95, 0.0, 0.0, 0.0])
    statistics = statistics._replace(query_logits=probability.log().expand(5, 7)[..., None])
    state.tokens = torch.full((5, 7), 3)
    state.among = state.positions > 3
    state.reveal_step[:, 1:4] = 1  # what stands at position 0 belongs to the prompt
    state.reveal_step[:, 4:6] = 2
    state.reveal_step[4, 5] = 0
    state.memory["wino.count"] = torch.tensor([[3], [2], [1], [0], [3]])
    tokens, open = policy.revise(statistics, state)
    assert tokens.tolist() == [
        [3, back, back, 3, 3, 3, 3],
        [3, back, 3, 3, 3, 3, 3],  # fewer than two
        [3] * 7,
        [3] * 7,
        [3] * 7,  # one position was revealed
    ]
    assert state.memory["wino.count"].tolist() == [[2], [2], [2], [2], [1]]
    assert not open.any()


def test_a_block_ends_within_as_many_forwards_as_it_has_positions(device):
    """Whatever is asked: here everything may be revealed, and everything doubted."""
    for seed in range(3):
        for block in (4, 16):
            lengths, sampled = {"gen_length": LENGTH, "block_length": block}, {"temperature": 3.0, "top_k": 4}
            config = DecodeConfig(policy=Wino(0.0, 1.0), stop_at_eos=False, **lengths, **sampled)
            result = decode(model_of(seed, device), RAGGED, config, watch=at_most(LENGTH))
            assert result.forwards.max() <= LENGTH
            finished = result.reveal_step.view(len(RAGGED), -1, block).amax(-1)
            assert (finished.diff(prepend=torch.zeros(len(RAGGED), 1)) <= block).all()
            assert all(MASK not in canvas for canvas in result.canvases())


def test_what_is_decoded_is_what_is_published(device):
    """Ragged prompts in one batch, with and without an end, against the loop for each by itself: at least 100 rows."""
    forwards = []
    for seed, (block, threshold, keep) in enumerate(SETTINGS * 2):
        model, rule = model_of(seed, device), {"threshold": threshold, "keep": keep}
        for ends in ([EOS], []):
            changes = {"gen_length": LENGTH, "block_length": block, "policy": Wino(**rule), "batch_size": 3}
            config = preset("wino", **changes, stop_at_eos=bool(ends))
            result = decode(model, RAGGED, config, watch=at_most(len(RAGGED) * LENGTH))
            for number, prompt in enumerate(RAGGED):
                special = {"mask_id": MASK, "suppress": [UNUSED], "eos_ids": ends}
                expected = wino.loop(
                    partial(with_shadow, model), prompt, gen_length=LENGTH, block_length=block, **rule, **special
                )
                length = expected.tokens.index(EOS) + 1 if ends and EOS in expected.tokens else LENGTH
                assert result.canvases()[number][:length] == expected.tokens[:length]
                assert result.reveal_step[number, :length].tolist() == expected.reveal_step[:length]
                assert result.forwards[number] == expected.forwards <= LENGTH
                forwards.append(expected.forwards)
    assert len(forwards) >= 100
    assert len(set(forwards)) > 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache": "prefix"}, "cache is prefix: expected None"),
        ({"guidance": 1.0}, "guidance is 1.0: expected 0.0"),
        ({"block_causal": True}, "block_causal is True: expected False"),
    ],
)
def test_settings_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=f"policy wino:0.6 verifies tokens, and {message}"):
        DecodeConfig(policy="wino", **changes)


def test_a_policy_that_verifies_sees_a_block():
    def policy(statistics, state):
        return statistics.log_odds, state.eligible

    policy.verifies = True
    with pytest.raises(ValueError, match='verifies tokens: expected sees = "block"'):
        DecodeConfig(policy=policy)


def test_models_that_are_refused(device):
    config = DecodeConfig(gen_length=8, block_length=4, policy=Wino())
    with pytest.raises(TypeError, match="MixingModel takes no shadow: expected"):
        decode(MixingModel(), [[1]], config)
    with pytest.raises(ValueError, match="and the model predicts each token one position earlier: expected"):
        decode(random_transformer("dream", 1, device), [[1]], config)
    model = random_transformer("llada", 1, device)
    model.config.causal_block_length = 4
    with pytest.raises(ValueError, match="and the model attends to blocks of 4: expected"):
        decode(model, [[1]], config)
