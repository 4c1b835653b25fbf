"""Properties that every decode has: a complete trajectory that the model reproduces, the same at any batch size."""

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from python_tests.decoding.conftest import RAGGED
from tad_ext.decoding import ConfidenceThreshold, DecodeConfig, EntropyThreshold, TopK, decode
from tad_ext.models.lora import add_lora
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM
from tad_ext.ops import pack_offsets, token_statistics

pytestmark = pytest.mark.slow

MASK, EOS, UNUSED = 10, 9, 11

prompts_of_any_length = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=9), min_size=1, max_size=6)
policies = st.one_of(
    st.integers(1, 5).map(TopK),
    st.floats(0, 1).map(ConfidenceThreshold),
    st.floats(0, 2.5).map(EntropyThreshold),
)


@st.composite
def configs(draw):
    block_length = draw(st.integers(1, 5))
    return DecodeConfig(
        gen_length=block_length * draw(st.integers(1, 4)),
        block_length=block_length,
        policy=draw(policies),
        block_add_threshold=draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        decoded_token_threshold=draw(st.sampled_from([0.0, 0.5, 0.95, 1.0])),
        stop_at_eos=draw(st.booleans()),
        temperature=draw(st.sampled_from([0.0, 0.0, 0.7, 2.0])),
        seed=draw(st.integers(0, 2**40)),
        batch_size=draw(st.integers(1, 7)),
    )


few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(prompts_of_any_length, configs(), st.integers(0, 3))
def test_every_position_is_revealed_by_one_forward(mixing_model, prompts, config, model_seed):
    model = mixing_model(model_seed)
    result = decode(model, prompts, config)
    assert [tokens[:n] for tokens, n in zip(result.sequences, result.prompt_lengths, strict=True)] == prompts
    canvas = torch.tensor(result.canvases())
    assert canvas.shape == result.reveal_step.shape == (len(prompts), config.gen_length)
    assert not ((canvas == MASK) | (canvas == UNUSED)).any()
    assert (result.reveal_step >= 1).all()
    assert (result.reveal_step.amax(1) == result.forwards).all()
    for steps, forwards in zip(result.reveal_step, result.forwards, strict=True):
        if not config.stop_at_eos:  # no forward passes without a reveal (overwritten ones may be missing otherwise)
            assert sorted(set(steps.tolist())) == list(range(1, int(forwards) + 1))
    # Finished rows are not computed: what the model was asked for is what the rows count.
    assert sum(len(call.input_ids) for call in model.calls) == result.total_forwards()
    if config.block_add_threshold == config.decoded_token_threshold == 1.0:
        assert all(call.positions.shape == (len(call.input_ids), config.block_length) for call in model.calls)
    is_eos = (canvas == EOS).int()
    first = torch.where(is_eos.any(1), is_eos.argmax(1), config.gen_length - 1)
    assert result.response_lengths.tolist() == (first + 1).tolist()
    if config.stop_at_eos:
        assert all(set(row[end:].tolist()) <= {EOS} for row, end in zip(canvas, first + 1, strict=True))


@few
@given(prompts_of_any_length, configs(), st.sampled_from([1, 3, 8]))
def test_the_batch_size_changes_nothing(mixing_model, prompts, config, batch_size):
    result = decode(mixing_model(), prompts, config)
    other = decode(mixing_model(), prompts, replace(config, batch_size=batch_size))
    assert other.sequences == result.sequences
    assert torch.equal(other.reveal_step, result.reveal_step)
    assert torch.equal(other.forwards, result.forwards)


@few
@given(prompts_of_any_length, configs())
def test_the_model_reproduces_the_trajectory(device, mixing_model, prompts, config):
    """The state before forward s is where(reveal_step < s, canvas, MASK); the model's answer to it is what s adds."""
    config = replace(config, stop_at_eos=False)
    model = mixing_model()
    result = decode(model, prompts, config)
    suppressed = torch.tensor([MASK, UNUSED], device=device)
    columns = torch.arange(config.gen_length, device=device)
    for number, (prompt, canvas) in enumerate(zip(prompts, torch.tensor(result.canvases()), strict=True)):
        reveal_step = result.reveal_step[number]
        for step in range(1, int(result.forwards[number]) + 1):
            state = canvas.masked_fill(reveal_step >= step, MASK)
            logits = model.row_logits(torch.cat([torch.tensor(prompt), state]))[len(prompt) :]
            statistics = token_statistics(
                logits.to(device),
                temperature=config.temperature,
                suppress_tokens=suppressed,
                seeds=torch.full_like(columns, config.seed + number),
                offsets=pack_offsets(step, columns),
            )
            now = reveal_step == step
            sampled = statistics.token.cpu()[now] == canvas[now]
            # The one that a block is forced to reveal is the most probable.
            most_probable = (statistics.top_token.cpu()[now] == canvas[now]) & (config.forced_progress == "row")
            assert (sampled | most_probable).all()
            assert (~sampled).sum() <= 1


@few
@given(prompts_of_any_length, st.integers(1, 6), st.integers(1, 3))
def test_one_token_per_forward_is_a_permutation_block_by_block(mixing_model, prompts, block_length, blocks):
    gen_length = block_length * blocks
    result = decode(mixing_model(), prompts, DecodeConfig(gen_length, block_length, stop_at_eos=False))
    assert result.forwards.tolist() == [gen_length] * len(prompts)
    expected = torch.arange(1, gen_length + 1).view(blocks, block_length)
    for steps in result.reveal_step.view(-1, blocks, block_length):
        assert torch.equal(steps.sort(dim=1).values, expected)


def tiny_model(seed=0):
    torch.manual_seed(seed)
    config = TinyDiffusionConfig(
        vocab_size=12,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.4,
        attention_dropout=0.5,
        mask_token_id=MASK,
        eos_token_ids=[EOS],
        suppress_token_ids=[UNUSED],
    )
    return TinyDiffusionLM(config)


def test_a_transformer_decodes_the_same_at_any_batch_size():
    model = tiny_model()
    for policy in (TopK(1), TopK(3), EntropyThreshold(1.2), ConfidenceThreshold(0.4)):
        for temperature in (0.0, 1.0):
            config = DecodeConfig(
                gen_length=16,
                block_length=4,
                policy=policy,
                block_add_threshold=0.25,
                decoded_token_threshold=0.5,
                temperature=temperature,
                stop_at_eos=temperature == 0.0,
            )
            results = [decode(model, RAGGED, replace(config, batch_size=size)) for size in (1, 3, 8)]
            for result in results[1:]:
                assert result.sequences == results[0].sequences
                assert torch.equal(result.reveal_step, results[0].reveal_step)
                assert torch.equal(result.forwards, results[0].forwards)
            if policy == TopK(1):
                # The same prompt twice: the same answer when greedy, another one when sampled.
                assert (results[0].sequences[0] == results[0].sequences[-1]) == (temperature == 0.0)


def test_an_adapted_model_decodes_with_its_adapter():
    model = tiny_model().eval()
    config = DecodeConfig(gen_length=8, block_length=4)
    base = decode(model, RAGGED, config)
    adapted = add_lora(model, rank=2, alpha=8, target_modules=["q_proj", "up_proj"])
    assert decode(adapted, RAGGED, config).sequences == base.sequences  # a fresh adapter computes zero
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    assert decode(adapted, RAGGED, config).sequences != base.sequences


def test_sampling_follows_the_seed(mixing_model):
    config = DecodeConfig(gen_length=8, block_length=4, temperature=1.0, stop_at_eos=False)

    def canvases(**changes):
        return decode(mixing_model(), [[1, 2], [1, 2], [1, 2]], replace(config, **changes)).canvases()

    assert canvases(seed=5) == canvases(seed=5)
    assert canvases(seed=5) != canvases(seed=50)
    assert canvases(seed=5)[1:] == canvases(seed=6)[:2]  # prompt i samples with seed + i
    assert canvases(seed=5, temperature=0.0) == canvases(seed=50, temperature=0.0)


def test_sampled_tokens_follow_the_distribution(scripted_model):
    """One position, 600 prompts: a token of probability 0.7 is drawn 444 times, give or take 11."""
    model = scripted_model([0.7], tokens=[4])
    config = DecodeConfig(gen_length=1, block_length=1, temperature=1.0, batch_size=600)
    drawn = [canvas[0] for canvas in decode(model, [[1]] * 600, config).canvases()]
    # Two ids, of probability 0.3 / 11 each, must not be drawn.
    assert abs(drawn.count(4) - 600 * 0.7 / (1 - 2 * 0.3 / 11)) < 40
    assert set(drawn) <= set(range(10))


def test_decoding_leaves_the_model_as_it_was():
    model = tiny_model()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    assert True in modes
    assert False in modes
    config = DecodeConfig(gen_length=8, block_length=4)
    result = decode(model, RAGGED, config)
    assert [module.training for module in model.modules()] == modes
    assert decode(model.eval(), RAGGED, config).sequences == result.sequences  # no dropout while decoding
    # Neither the model nor the results are bound to inference mode: both can be used in training.
    logits = model(torch.tensor(result.sequences[:1])).logits[0, -8:]
    torch.nn.functional.cross_entropy(logits, result.reveal_step[0]).backward()
    assert model.lm_head.weight.grad is not None


def test_progress_counts_canvas_positions(mixing_model, capsys):
    config = DecodeConfig(gen_length=4, block_length=4)
    decode(mixing_model(), [[1], [2]], config)
    assert capsys.readouterr().err == ""
    decode(mixing_model(), [[1], [2]], config, progress=True)
    assert "8/8" in capsys.readouterr().err
