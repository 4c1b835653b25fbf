"""The plain loops of `helpers/published`: their rules on small examples, and `tad_ext.decode` where it has the same."""

from functools import partial

import pytest
import torch
from published import block_schedule, d2f, d3llm, d3llm_cache, dream, fast_dllm, klass, llada, prophet, sched, tad
from published.block_schedule import confidence_from, entropy_below
from published.canvas import Canvas
from published.models import BlockWindows, PackageModel

from python_tests.decoding.conftest import EOS, MASK, RAGGED, UNUSED, VOCABULARY, MixingModel
from tad_ext.decoding import DecodeConfig, DualCache, PrefixCache, decode, parse_policy, preset

IDS = {"mask_id": MASK, "suppress": [UNUSED]}
STOPPING = {**IDS, "eos_ids": [EOS]}
SEEDS = range(6)
PROMPTS = RAGGED[:3]


def predict_of(seed):
    return MixingModel(seed).row_logits


def scripted(confidences):
    """Behind a prompt of one token, position i is token 1 + i % 8 with this probability, whatever is revealed."""
    logits = torch.full((len(confidences) + 1, VOCABULARY), 0.0)
    for i, p in enumerate(confidences):
        logits[i + 1] = torch.tensor((1 - p) / (VOCABULARY - 1)).log()
        logits[i + 1, 1 + i % 8] = torch.tensor(p).log()
    return lambda ids: logits[: len(ids)]


def changing(*tables):
    """The n-th different input sees the n-th of these (G, V) tables of logits; the last one stays."""
    inputs = []

    def predict(ids):
        if not any(torch.equal(ids, other) for other in inputs):
            inputs.append(ids.clone())
        table = torch.tensor(tables[min(len(inputs), len(tables)) - 1])
        return torch.cat((torch.zeros(len(ids) - len(table), table.shape[1]), table))

    return predict


def assert_decoded(model, prompt, config, decoded):
    result = decode(model, [prompt], config)
    assert result.canvases() == [decoded.tokens]
    assert result.reveal_step.tolist() == [decoded.reveal_step]
    assert result.forwards.tolist() == [decoded.forwards]


# --- The canvas ---


def test_an_end_of_sequence_fills_what_stands_behind_it():
    canvas = Canvas([1], 6, MASK, [EOS, 8])
    canvas.reveal({4: 3}, 1)
    canvas.reveal({3: EOS, 2: 8}, 2)
    assert canvas.ids.tolist() == [1, MASK, MASK, 8, 8, 8, 8]
    canvas.reveal({0: EOS}, 3)
    assert not canvas.masks()
    assert canvas.decoded(3).reveal_step == [3] * 6
    assert canvas.decoded(3).tokens == [EOS] * 6


def test_the_lowest_position_and_the_lowest_token_win_ties():
    decoded = llada.loop(lambda ids: torch.zeros(len(ids), 12), [1], gen_length=3, block_length=3, steps=3, **IDS)
    assert decoded.tokens == [0, 0, 0]
    assert decoded.reveal_step == [1, 2, 3]


# --- Several blocks at once ---


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rule", [entropy_below(1.2), entropy_below(0.0), confidence_from(0.5)])
def test_block_by_block_all_ways_of_forcing_are_one(seed, rule):
    runs = [
        block_schedule.loop(
            predict_of(seed), PROMPTS[0], gen_length=16, block_length=4, rule=rule, forced=forced, **STOPPING
        )
        for forced in ("row-and-block", "block", "every-block")
    ]
    assert runs[0] == runs[1] == runs[2]
    assert MASK not in runs[0].tokens
    assert UNUSED not in runs[0].tokens


def test_the_three_ways_of_forcing_by_hand():
    """Two blocks of 4. Forward 1 accepts 0, 1 and 2: a share of 0.75, so block 2 comes, and is active from 0.5 on."""
    confidences = [0.9, 0.9, 0.9, 0.3, 0.5, 0.45, 0.4, 0.35]

    def steps(forced, decoded_token_threshold=0.5):
        return block_schedule.loop(
            scripted(confidences),
            [1],
            gen_length=8,
            block_length=4,
            rule=confidence_from(0.8),
            forced=forced,
            block_add_threshold=0.5,
            decoded_token_threshold=decoded_token_threshold,
            **IDS,
        ).reveal_step

    # Forward 2: the row's best is 4, and the first active block, which has 3 alone, got none.
    assert steps("row-and-block") == [1, 1, 1, 2, 2, 3, 4, 5]
    assert steps("block") == [1, 1, 1, 2, 3, 4, 5, 6]
    assert steps("every-block") == [1, 1, 1, 2, 2, 3, 4, 5]
    # At 0.95 block 2 is not active before forward 3; the row rule does not ask.
    assert steps("every-block", 0.95) == [1, 1, 1, 2, 3, 4, 5, 6]
    assert steps("row-and-block", 0.95) == [1, 1, 1, 2, 2, 3, 4, 5]


def test_a_block_in_which_the_row_rule_forced_one_forces_no_other():
    confidences = [0.9, 0.9, 0.6, 0.5, 0.45, 0.4, 0.35, 0.3]
    decoded = block_schedule.loop(
        scripted(confidences),
        [1],
        gen_length=8,
        block_length=4,
        rule=confidence_from(0.8),
        forced="row-and-block",
        block_add_threshold=0.5,
        decoded_token_threshold=0.5,
        **IDS,
    )
    assert decoded.reveal_step == [1, 1, 2, 3, 4, 5, 6, 7]


def test_a_block_behind_a_complete_one_is_active_though_an_earlier_one_is_not_complete():
    """Block 2 of 3 is complete after forward 2, while block 1 still has a mask in forward 3."""
    confidences = [0.9, 0.9, 0.3, 0.2, *[0.95] * 4, 0.5, 0.45, 0.4, 0.35]
    for forced, reveal_step in (
        ("row-and-block", [1, 1, 2, 3, 2, 2, 2, 2, 3, 4, 5, 6]),
        ("block", [1, 1, 2, 3, 2, 2, 2, 2, 4, 5, 6, 7]),
        ("every-block", [1, 1, 2, 3, 2, 2, 2, 2, 3, 4, 5, 6]),
    ):
        settings = {"gen_length": 12, "block_length": 4, "rule": confidence_from(0.8), **IDS}
        decoded = d3llm.dream(scripted(confidences), [1], forced=forced, **settings)
        assert decoded.reveal_step == reveal_step, forced


def test_one_block_at_most_is_added_after_a_forward_and_a_growing_canvas_is_seen():
    seen = []

    def predict(ids):
        seen.append(len(ids) - 1)
        return scripted([0.95] * 12)(ids)

    decoded = d2f.llada(predict, [1], gen_length=12, block_length=4, **IDS)
    assert seen == [4, 8, 12]
    assert decoded.reveal_step == [1] * 4 + [2] * 4 + [3] * 4


def test_a_forced_token_of_the_block_is_not_sampled_but_the_rows_is():
    confidences = [0.9, 0.9, 0.9, 0.3, 0.5, 0.45, 0.4, 0.35]
    seven = {"sample": lambda forward, position, logits: 7, "gen_length": 8, "block_length": 4}
    decoded = tad.llada_script(scripted(confidences), [1], rule=entropy_below(1.0), **seven, **IDS)
    assert decoded.reveal_step == [1, 1, 1, 2, 2, 3, 4, 5]
    assert decoded.tokens == [7, 7, 7, 4, 7, 7, 7, 7]  # 4 is the most probable token at position 3


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("policy", ["entropy:1.2", "confidence:0.5"])
def test_decode_has_the_rule_of_d3llm_for_dream(seed, policy):
    rule = {"entropy": entropy_below, "confidence": confidence_from}[policy.split(":")[0]](float(policy.split(":")[1]))
    for prompt in PROMPTS:
        config = preset("d3llm-dream", gen_length=16, block_length=4, policy=parse_policy(policy))
        decoded = d3llm.dream(predict_of(seed), prompt, gen_length=16, block_length=4, rule=rule, **STOPPING)
        assert_decoded(MixingModel(seed), prompt, config, decoded)


@pytest.mark.parametrize("seed", SEEDS)
def test_decode_has_the_rule_of_tad_block_by_block(seed):
    for prompt in PROMPTS:
        config = DecodeConfig(gen_length=16, block_length=4, policy=parse_policy("entropy:1.2"))
        settings = {"gen_length": 16, "block_length": 4, "rule": entropy_below(1.2)}
        assert_decoded(
            MixingModel(seed), prompt, config, tad.block_by_block(predict_of(seed), prompt, **settings, **STOPPING)
        )


@pytest.mark.parametrize("seed", SEEDS)
def test_every_forward_reveals_something(seed):
    settings = {"gen_length": 16, "block_length": 4, **IDS}
    for decoder in (tad.llada, d3llm.dream, d2f.llada, tad.one_per_step):
        decoded = decoder(predict_of(seed), PROMPTS[0], **settings)
        assert sorted(set(decoded.reveal_step)) == list(range(1, decoded.forwards + 1))
    assert decoded.forwards == 16


# --- d3LLM's cache ---


class NoModel:
    """A `Model` that keeps nothing, for tests of windows."""

    def cache(self, length):
        return None

    def forward(self, ids, columns, cache):
        return torch.zeros(len(ids), VOCABULARY)


@pytest.mark.parametrize(
    ("delay", "refresh_interval", "finished", "windows"),
    [
        # A prompt of 3, blocks of 2; `finished` are the blocks that are before each forward.
        (0, None, [0, 1, 2, 3], [0, 3, 5, 7]),
        # Block 1 waits in forward 2 and is kept in 3; block 2 begins to wait there, and is kept in 4.
        (1, None, [0, 1, 2, 3], [0, 0, 3, 5]),
        (1, None, [0, 1, 1, 1, 2, 2, 2], [0, 0, 3, 5, 0, 5, 7]),
        # The prompt is kept in forward 2, in which block 1 begins to wait.
        (2, None, [0, 1, 2, 3], [0, 0, 0, 3]),
        (2, None, [0, 0, 0, 0, 1, 1, 1, 1, 2], [0, 0, 3, 3, 0, 0, 3, 5, 0]),
        # Refreshed in 3 and 6. Forward 7 keeps block 1.
        (2, 3, [0, 0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 3, 0, 0, 3, 5, 0]),
        # What keeps a block is not refreshed: forward 6.
        (2, 3, [0, 0, 0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 3, 5, 5]),
    ],
)
def test_windows_of_the_delayed_cache(delay, refresh_interval, finished, windows):
    predict = d3llm_cache.DelayedPrefix(
        NoModel(), prompt_length=3, block_length=2, delay=delay, refresh_interval=refresh_interval, mask_id=MASK
    )
    for blocks in finished:
        predict(torch.tensor([1, 2, 3] + [4] * 2 * blocks + [MASK] * (8 - 2 * blocks)))
    assert predict.windows == windows


@pytest.mark.parametrize("transformer", ["tiny", "llada"], indirect=True)
def test_the_delayed_cache_is_exact_while_nothing_is_kept(transformer):
    settings = {"gen_length": 16, "block_length": 4, "rule": entropy_below(1.2), **STOPPING}
    for prompt in PROMPTS:
        model = PackageModel(transformer)
        assert d3llm.gsm8k_cached(model, prompt, delay=99, **settings) == d3llm.llada(model, prompt, **settings)


@pytest.mark.parametrize("transformer", ["tiny", "llada"], indirect=True)
def test_the_delayed_cache_reads_old_keys(transformer):
    """Or it would not be one: for every published setting some prompt is decoded otherwise than without a cache."""
    settings = {"gen_length": 16, "block_length": 4, "rule": entropy_below(1.0), **IDS}
    thresholds = {"block_add_threshold": 1.0, "decoded_token_threshold": 1.0}
    for decoder, exact in (
        (d3llm.gsm8k_cached, d3llm.llada),
        (d3llm.long_gsm8k_cached, d3llm.llada),
        (d3llm.math_cached, d3llm.llada),
        (d3llm.humaneval_cached, partial(d3llm.llada, **thresholds)),
    ):
        model = PackageModel(transformer)
        assert any(decoder(model, prompt, **settings) != exact(model, prompt, **settings) for prompt in RAGGED)


# --- Fast-dLLM ---


@pytest.mark.parametrize("seed", SEEDS)
def test_decode_has_fast_dllms_threshold(seed):
    for prompt in PROMPTS:
        config = DecodeConfig(gen_length=16, block_length=4, policy=parse_policy("confidence:0.5"))
        settings = {"gen_length": 16, "block_length": 4, "threshold": 0.5}
        assert_decoded(
            MixingModel(seed), prompt, config, fast_dllm.threshold(predict_of(seed), prompt, **settings, **STOPPING)
        )


@pytest.mark.parametrize("transformer", ["tiny", "llada"], indirect=True)
@pytest.mark.parametrize("scheme", [PrefixCache(), DualCache()], ids=str)
@pytest.mark.parametrize("per_step", [None, 2])
def test_decode_has_fast_dllms_caches(transformer, scheme, per_step):
    for prompt in PROMPTS:
        policy = "confidence:0.5" if per_step is None else f"topk:{per_step}"
        config = DecodeConfig(gen_length=16, block_length=4, policy=parse_policy(policy), cache=scheme)
        predict = BlockWindows(
            PackageModel(transformer), str(scheme), prompt_length=len(prompt), block_length=4, mask_id=MASK
        )
        settings = {"gen_length": 16, "block_length": 4, **STOPPING}
        if per_step is None:
            decoded = fast_dllm.threshold(predict, prompt, threshold=0.5, **settings)
        else:
            decoded = llada.loop(predict, prompt, steps=16 // per_step, **settings)
        assert_decoded(transformer, prompt, config, decoded)


@pytest.mark.parametrize(
    ("confidences", "code", "paper"),
    [
        # Factor 1: the second needs 2/3, the third 3/4, the fourth 4/5.
        ([0.5, 0.7, 0.2, 0.1], [2, 1, 3, 3], [2, 1, 3, 4]),
        ([0.9, 0.7, 0.76, 0.1], [1, 2, 1, 2], [1, 2, 1, 3]),
        ([0.9, 0.8, 0.76, 0.1], [1, 1, 1, 1], [1, 1, 1, 2]),
        ([0.9, 0.85, 0.8, 0.75], [1, 1, 1, 1], [1, 1, 1, 2]),
        ([0.6, 0.2, 0.5, 0.1], [1, 3, 2, 3], [1, 3, 2, 4]),
    ],
)
def test_the_factor_rule_as_run_and_as_written(confidences, code, paper):
    settings = {"gen_length": 4, "block_length": 4, **IDS}
    for variant, steps in (("code", code), ("paper", paper)):
        decoded = fast_dllm.factor(scripted(confidences), [1], variant=variant, **settings)
        assert decoded.reveal_step == steps, variant


@pytest.mark.parametrize("seed", SEEDS)
def test_decode_has_the_factor_rule_as_written(seed):
    for prompt in PROMPTS:
        config = DecodeConfig(gen_length=16, block_length=4, policy=parse_policy("factor:1.5"))
        settings = {"gen_length": 16, "block_length": 4, "factor": 1.5, "variant": "paper"}
        assert_decoded(
            MixingModel(seed), prompt, config, fast_dllm.factor(predict_of(seed), prompt, **settings, **STOPPING)
        )


@pytest.mark.parametrize("transformer", ["dream"], indirect=True)
@pytest.mark.parametrize("kind", ["prefix", "dual"])
def test_fast_dllm_on_dream_begins_a_block_with_its_first_position_alone(transformer, kind):
    settings = {"gen_length": 12, "block_length": 4, "threshold": 0.2, **IDS}
    decoded = fast_dllm.dream_cached(PackageModel(transformer), [1, 2, 3], kind=kind, **settings)
    for first in (0, 4, 8):
        block = decoded.reveal_step[first : first + 4]
        assert block[0] < min(block[1:])
        assert decoded.reveal_step.count(block[0]) == 1


@pytest.mark.parametrize("transformer", ["dream"], indirect=True)
def test_a_window_of_dream_predicts_all_but_its_first_column(transformer):
    model = PackageModel(transformer)
    ids = torch.tensor([1, 2, 3, MASK, MASK, MASK])
    cache = model.cache(6)
    whole = model.forward(ids, None, cache)
    window = model.forward(ids, [3, 4], cache)
    assert window.isnan().all(dim=1).tolist() == [True, True, True, True, False, False]
    torch.testing.assert_close(window[4:], whole[4:])


# --- KLASS ---


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("forwards", [1, 2])
def test_decode_has_klass_on_one_block(seed, forwards):
    policy = parse_policy(f"klass:threshold=0.3,divergence=0.03,forwards={forwards}")
    rule = {"threshold": 0.3, "divergence": 0.03, "forwards": forwards}
    for prompt in PROMPTS:
        config = DecodeConfig(gen_length=8, block_length=8, policy=policy)
        decoded = klass.loop(predict_of(seed), prompt, gen_length=8, block_length=8, **rule, **STOPPING)
        assert_decoded(MixingModel(seed), prompt, config, decoded)


def test_klass_watches_blocks_before_they_begin():
    """Nothing ever changes, and all is sure: block 1 accepts in its third forward, later ones in their second."""
    decoded = klass.loop(scripted([0.95 - 0.001 * i for i in range(12)]), [1], gen_length=12, block_length=4, **IDS)
    assert decoded.reveal_step == [1, 2, 3, 3, 4, 5, 5, 5, 6, 7, 7, 7]
    alone = klass.loop(scripted([0.95 - 0.001 * i for i in range(4)]), [1], gen_length=4, block_length=4, **IDS)
    assert alone.reveal_step == [1, 2, 3, 3]


# --- LLaDA ---


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("per_step", [1, 2, 4])
def test_decode_has_lladas_steps_where_they_divide(seed, per_step):
    for prompt in PROMPTS:
        config = DecodeConfig(gen_length=16, block_length=4, policy=parse_policy(f"topk:{per_step}"))
        settings = {"gen_length": 16, "block_length": 4, "steps": 16 // per_step, **STOPPING}
        assert_decoded(MixingModel(seed), prompt, config, llada.loop(predict_of(seed), prompt, **settings))


@pytest.mark.parametrize(
    ("steps", "revealed", "counted"),
    [(1, [10], 1), (3, [4, 3, 3], 3), (4, [3, 3, 2, 2], 4), (7, [2, 2, 2, 1, 1, 1, 1], 7), (13, [1] * 10, 10)],
)
def test_the_first_steps_of_llada_reveal_one_more(steps, revealed, counted):
    settings = {"gen_length": 20, "block_length": 10, "steps": 2 * steps, **IDS}
    decoded = llada.loop(predict_of(0), [1, 2], **settings)
    assert [decoded.reveal_step.count(forward + 1) for forward in range(decoded.forwards)] == revealed * 2
    assert decoded.steps == (2 * counted if steps <= 10 else steps + counted)  # to the last reveal


def test_random_remasking_reveals_the_largest_numbers():
    def random(forward, position):
        return (7 * position + 3 * forward) % 11 / 11

    decoded = llada.loop(predict_of(0), [1, 2], gen_length=8, block_length=8, steps=4, random=random, **IDS)
    left = list(range(8))
    for forward in range(1, 5):
        chosen = sorted(left, key=lambda i: random(forward, i))[-2:]
        assert [i for i in range(8) if decoded.reveal_step[i] == forward] == sorted(chosen)
        left = [i for i in left if i not in chosen]


@pytest.mark.parametrize("seed", SEEDS)
def test_decode_has_logits_eos_inf(seed):
    settings = {"gen_length": 16, "block_length": 8, "steps": 8}
    config = DecodeConfig(gen_length=16, block_length=8, policy=parse_policy("topk:2"), min_length=16)
    decoded = llada.loop(predict_of(seed), PROMPTS[0], logits_eos_inf=[EOS], **settings, **STOPPING)
    assert_decoded(MixingModel(seed), PROMPTS[0], config, decoded)


def test_positions_that_predict_an_end_come_last():
    confidences = [0.8, 0.9, 0.7, 0.6]  # of the tokens 1, 2, 3, 4
    settings = {"gen_length": 4, "block_length": 4, "steps": 4, **IDS}
    assert llada.loop(scripted(confidences), [1], **settings).reveal_step == [2, 1, 3, 4]
    decoded = llada.loop(scripted(confidences), [1], confidence_eos_eot_inf=[2, 3], **settings)
    assert decoded.reveal_step == [1, 3, 4, 2]
    assert decoded.tokens == [1, 2, 3, 4]


def test_without_the_mass_of_the_ends_another_position_may_be_the_surest():
    probabilities = [[0.5, 0.4, 0.1], [0.55, 0.05, 0.4]]  # of tokens 0, 1 and 2, where 2 is an end
    table = torch.tensor(probabilities).log()
    settings = {"gen_length": 2, "block_length": 2, "steps": 2, "mask_id": 3, "confidence_eos_eot_inf": [2]}

    def predict(ids):
        return torch.cat((table, torch.full((2, 1), -20.0)), dim=1)

    assert llada.loop(predict, [], **settings).reveal_step == [2, 1]
    assert llada.loop(predict, [], eos_and_eot_have_no_mass=True, **settings).reveal_step == [2, 1]  # 5/9 < 11/12
    table = torch.tensor([[0.5, 0.1, 0.4], [0.55, 0.4, 0.05]]).log()
    assert llada.loop(predict, [], **settings).reveal_step == [2, 1]
    assert llada.loop(predict, [], eos_and_eot_have_no_mass=True, **settings).reveal_step == [1, 2]  # 5/6 > 11/19


# --- Dream ---


@pytest.mark.parametrize("order", ["maskgit_plus", "topk_margin", "entropy"])
@pytest.mark.parametrize(
    ("steps", "revealed"),
    [
        (8, [1, 1, 1, 1, 1, 1, 2]),  # step 1 reveals int(8 * 0.1249) = 0
        (4, [1, 2, 2, 3]),
        (1, [8]),
    ],
)
def test_dreams_schedule(order, steps, revealed):
    decoded = dream.loop(predict_of(0), [1, 2], gen_length=8, steps=steps, order=order, **IDS)
    assert [decoded.reveal_step.count(forward + 1) for forward in range(decoded.forwards)] == revealed
    assert decoded.steps == steps


def test_dreams_orders():
    """Each order begins with another position; the last has the largest gap of logits, which none asks for."""
    table = torch.zeros(4, 8)
    table[0, :4] = torch.tensor([0.5, 0.24, 0.24, 0.02])
    table[1, :4] = torch.tensor([0.48, 0.18, 0.17, 0.17])
    table[2, :4] = torch.tensor([0.47, 0.46, 0.06, 0.01])
    table[3] = torch.tensor([0.3] + [0.1] * 7)

    def predict(ids):
        return torch.cat((table.log(), torch.full((4, 1), -20.0)), dim=1)

    for order, first in (("maskgit_plus", 0), ("topk_margin", 1), ("entropy", 2)):
        decoded = dream.loop(predict, [], gen_length=4, steps=50, order=order, mask_id=8)
        assert decoded.reveal_step.index(1) == first, order
        assert (decoded.forwards, decoded.steps) == (3, 50)


def test_dreams_origin_draws_for_each_mask():
    assert dream.share(1, 4) == pytest.approx(0.24975)
    assert dream.share(4, 4) == 1
    settings = {"gen_length": 8, "steps": 4, "order": "origin", **IDS}
    assert dream.loop(predict_of(0), [1], random=lambda step, i: 0.0, **settings).reveal_step == [1] * 8
    late = dream.loop(predict_of(0), [1], random=lambda step, i: 0.99, **settings)
    assert (late.reveal_step, late.forwards) == ([4] * 8, 4)
    some = dream.loop(predict_of(0), [1], random=lambda step, i: 0.24 if i == 5 and step == 1 else 0.99, **settings)
    assert some.reveal_step == [4, 4, 4, 4, 4, 1, 4, 4]


# --- Early exits ---


@pytest.mark.parametrize("seed", SEEDS)
def test_without_an_exit_sched_is_dreams_loop_and_prophet_lladas(seed):
    settings = {"gen_length": 8, "steps": 8}
    waiting = sched.loop(predict_of(seed), [1, 2], threshold=lambda step, steps: torch.inf, **settings, **STOPPING)
    assert waiting == dream.loop(predict_of(seed), [1, 2], order="entropy", **settings, **STOPPING)
    never = {"early": torch.inf, "mid": torch.inf, "late": torch.inf, "span": (6, 11), "block_length": 4}
    waiting = prophet.loop(predict_of(seed), [1, 2], **never, **settings, **STOPPING)
    assert waiting == llada.loop(predict_of(seed), [1, 2], block_length=4, **settings, **STOPPING)


def test_sched_thresholds():
    assert sched.cosine()(0, 9) == 7.5
    assert sched.cosine()(4, 9) == 5.0
    assert sched.cosine()(8, 9) == 2.5
    assert sched.linear()(2, 9) == 6.25
    assert sched.exponential()(8, 9) == pytest.approx(2.5 + 5 * 0.0183156)
    assert [sched.phases()(step, 3) for step in range(3)] == [5.0, 2.5, 2.5]


SURE, SURE_OF_ANOTHER = [9.0, 0.0, 0.0, -9.0], [0.0, 9.0, 0.0, -9.0]


@pytest.mark.parametrize(
    ("tables", "max_changed", "reveal_step", "steps"),
    [
        # 2 of 4 steps reveal nothing of 2 masks (int(2 * 0.25), int(2 * 0.33)), so step 1 is as step 0 was, and exits.
        ([[SURE, SURE]], 0.0, [1, 1], 2),
        ([[SURE, SURE]], 1.0, [1, 1], 1),
    ],
)
def test_sched_exits_once_nothing_changes(tables, max_changed, reveal_step, steps):
    decoded = sched.loop(changing(*tables), [1], gen_length=2, steps=4, mask_id=3, max_changed=max_changed)
    assert (decoded.reveal_step, decoded.steps) == (reveal_step, steps)


def test_sched_waits_while_a_masked_position_changes():
    # 4 masks in 4 steps: int(4 * 0.24975) = 0, int(4 * 0.333) = 1, int(3 * 0.4995) = 1, then the rest.
    flat = [1.0, 0.0, 0.0, -9.0]
    tables = [[flat] * 4, [SURE_OF_ANOTHER] * 4, [SURE] * 4]
    settings = {"gen_length": 4, "steps": 4, "mask_id": 3}
    guarded = sched.loop(changing(*tables), [1], **settings)
    assert (guarded.reveal_step, guarded.steps) == ([1, 2, 3, 3], 4)
    assert guarded.tokens == [0, 1, 0, 0]
    unguarded = sched.loop(changing(*tables), [1], max_changed=1.0, **settings)
    assert (unguarded.reveal_step, unguarded.steps) == ([1, 2, 2, 2], 3)


def test_prophet_watches_its_span_revealed_positions_included():
    def gaps(*values):
        return [[value, 0.0, 0.0, -9.0] for value in values]

    # Step 1 of 6 is early (7.5), 2 to 4 are in the middle (5.0), 5 and 6 late (2.5).
    settings = {"gen_length": 6, "block_length": 3, "steps": 6, "mask_id": 3}
    tables = gaps(6, 5.5, 5, 1, 1, 1)
    assert prophet.loop(changing(tables), [1], span=(0, 3), **settings).reveal_step == [1, 2, 2, 2, 2, 2]
    assert prophet.loop(changing(tables), [1], span=(0, 4), **settings).reveal_step == [1, 2, 3, 4, 5, 5]
    assert prophet.loop(changing(tables), [1], span=(4, 9), **settings).reveal_step == [1, 2, 3, 4, 5, 6]
