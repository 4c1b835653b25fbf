"""Block-causal attention: its cache is exact, blocks are where the model was made for them, and prompts stay whole."""

from dataclasses import replace

import pytest
import torch

from python_tests.decoding.conftest import EOS, MASK, RAGGED, UNUSED, MixingModel
from tad_ext.decoding import (
    BlockCache,
    BlockEditing,
    BlockPartsCache,
    ConfidenceThreshold,
    DecodeConfig,
    DualCache,
    EntropyThreshold,
    FastDLLMv2,
    SoftParallel,
    TopK,
    decode,
    parse_cache,
)
from tad_ext.decoding.sequence import SequenceProgress

BLOCK = 4
CONFIG = DecodeConfig(gen_length=16, block_length=BLOCK, policy=ConfidenceThreshold(0.6))
SEVERAL = replace(CONFIG, block_add_threshold=0.3, decoded_token_threshold=0.7, forced_progress="blocks")
CONFIGS = [CONFIG, SEVERAL, replace(CONFIG, policy=TopK(1)), replace(SEVERAL, policy=EntropyThreshold(1.0))]


@pytest.fixture
def own_blocks(transformer):
    """A model that attends block-causally by itself."""
    transformer.config.causal_block_length = BLOCK
    return transformer


def assert_same(results):
    for result in results[1:]:
        assert result.sequences == results[0].sequences
        assert torch.equal(result.reveal_step, results[0].reveal_step)
        assert torch.equal(result.forwards, results[0].forwards)


@pytest.mark.slow
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_the_cache_is_exact_at_every_batch_size(transformer, own, config):
    if own:
        transformer.config.causal_block_length = BLOCK
    config = replace(config, block_causal=not own)
    results = [
        decode(transformer, RAGGED, replace(config, cache=cache, batch_size=size))
        for cache in (None, BlockCache())
        for size in (1, 3, 16)
    ]
    assert_same(results)
    assert [len(one) for one in results[0].canvases()] == [16] * len(RAGGED)
    assert [ids[: len(prompt)] for ids, prompt in zip(results[0].sequences, RAGGED, strict=True)] == RAGGED
    whole = decode(transformer, RAGGED, replace(config, block_causal=False)) if not own else None
    assert whole is None or whole.sequences != results[0].sequences  # there is something to see


@pytest.mark.parametrize("transformer", ["llada", "dream"], indirect=True)
def test_a_cache_within_the_block_changes_results_but_not_by_the_batch(own_blocks):
    """Each row has its own part; in parts as long as the block the cache is exact."""
    own_blocks.config.causal_block_length = 8
    config = replace(CONFIG, block_length=8, policy=FastDLLMv2(0.6, 4), stop_at_eos=False)
    exact, *cached = (
        decode(own_blocks, RAGGED, replace(config, cache=cache, batch_size=size))
        for cache, size in ((BlockCache(), 16), (BlockPartsCache(4), 1), (BlockPartsCache(4), 3))
    )
    assert_same(cached)
    assert cached[0].sequences != exact.sequences
    config = replace(config, policy=FastDLLMv2(0.6, 8))
    assert_same([decode(own_blocks, RAGGED, replace(config, cache=one)) for one in (None, BlockPartsCache(8))])


def test_windows_of_parts():
    """Blocks of 6 in parts of 2, of a prompt that ends with the first column of its block."""
    scheme = BlockPartsCache(2)
    row = SequenceProgress(0, [0] * 12, 1, 0, 11, masks=11, eligible=5, first_mask=1)
    whole = None
    for first_mask, columns in (
        (1, whole), (1, (0, 2)), (2, whole), (3, (2, 4)), (5, (4, 6)), (6, whole), (7, whole), (7, (6, 8)), (10, whole),
    ):  # fmt: skip
        row.first_mask = first_mask
        assert scheme.columns(row, 6) == columns, first_mask
    assert BlockPartsCache(4).columns(replace(row, first_mask=11), 6) == (10, 12), "the last part is shorter"


@pytest.mark.slow
@pytest.mark.parametrize("stops", [False, True])
@pytest.mark.parametrize("threshold", [0.4, 0.6])
def test_blocks_of_a_model_begin_at_its_first_token(own_blocks, stops, threshold):
    """Against a plain loop, which knows one row, one block and no cache."""
    config = replace(CONFIG, policy=ConfidenceThreshold(threshold), stop_at_eos=stops, cache=BlockCache(), batch_size=3)
    result = decode(own_blocks, RAGGED, config)
    for number, prompt in enumerate(RAGGED):
        tokens, steps, forwards = plain(own_blocks, prompt, threshold, (EOS,) if stops else ())
        assert result.canvases()[number] == tokens[len(prompt) : len(prompt) + 16]
        assert result.reveal_step[number].tolist() == steps[len(prompt) : len(prompt) + 16]
        assert result.forwards[number] == forwards


@torch.no_grad()
def plain(model, prompt, threshold, ends):
    """(tokens, reveal steps, forwards) of prompt and response in whole blocks."""
    length = -(-(len(prompt) + 16) // BLOCK) * BLOCK
    ids, steps, forwards = [*prompt, *[MASK] * (length - len(prompt))], [0] * length, 0
    for end in range(BLOCK, length + 1, BLOCK):
        while MASK in (block := ids[end - BLOCK : end]):
            forwards += 1
            logits = model(torch.tensor([ids[:end]], device=model.device)).logits[0].cpu()
            probability = logits.softmax(-1)
            logits[:, [MASK, UNUSED]] = -torch.inf
            best = {
                place: int(logits[place].argmax()) for place in range(end - BLOCK, end) if block[place - end] == MASK
            }
            sure = {place: float(probability[place, token]) for place, token in best.items()}
            chosen = [place for place in best if sure[place] >= threshold] or [max(sure, key=sure.__getitem__)]
            for place in chosen:
                ids[place], steps[place] = best[place], forwards
            ended = [place for place in chosen if ids[place] in ends]
            for place in range(min(ended, default=length) + 1, length):
                ids[place], steps[place] = ids[min(ended)], forwards
    return ids, steps, forwards


@pytest.mark.parametrize("transformer", ["llada"], indirect=True)
def test_what_counts_in_the_response_counts_behind_the_prompt(own_blocks):
    """Minimal length and stop strings, where the canvas begins inside of the prompt."""
    config = replace(CONFIG, min_length=16, cache=BlockCache())
    assert all(EOS not in canvas for canvas in decode(own_blocks, RAGGED, config).canvases())

    class Digits:
        def decode(self, tokens, **_):
            return "".join(map(str, tokens))

    free = decode(own_blocks, RAGGED, replace(CONFIG, min_length=16))
    stop = str(free.canvases()[0][5])
    stopped = decode(own_blocks, RAGGED, replace(config, min_length=16, stop_strings=(stop,)), tokenizer=Digits())
    for canvas, length in zip(stopped.canvases(), stopped.response_lengths.tolist(), strict=True):
        text = "".join(map(str, canvas[:length]))
        assert stop not in text[:-1]
        assert text.endswith(stop) or length == 16
    assert stopped.response_lengths[0] <= 6


@pytest.mark.parametrize("transformer", ["llada"], indirect=True)
def test_a_watcher_sees_the_response_alone(own_blocks):
    seen = {}

    def watch(numbers, canvas, reveal_step):
        assert canvas.shape == reveal_step.shape == (len(numbers), 16)
        seen.update(zip(numbers, canvas.tolist(), strict=True))

    result = decode(own_blocks, RAGGED, replace(CONFIG, stop_at_eos=False), watch=watch)
    assert [seen[number] for number in range(len(RAGGED))] == result.canvases()


@pytest.mark.parametrize("transformer", ["llada"], indirect=True)
def test_what_does_not_fit_is_named(own_blocks):
    for changes, message in (
        ({"block_length": 8}, "block_length is 8, and the model attends to blocks of 4"),
        ({"block_causal": True}, "block_causal is True, and the model attends to blocks of 4"),
        ({"infill": True, "stop_at_eos": False}, "infill is True, and the model"),
        ({"guidance": 1.0}, "guidance is 1.0, and the model"),
        ({"cache": DualCache()}, "cache is dual, and attention is block-causal: expected none, block or block-parts"),
    ):
        with pytest.raises(ValueError, match=message):
            decode(own_blocks, RAGGED, replace(CONFIG, **changes))
    own_blocks.config.causal_block_length = None
    with pytest.raises(ValueError, match="cache is block, and attention is in both directions: expected another one"):
        decode(own_blocks, RAGGED, replace(CONFIG, cache=BlockCache()))
    with pytest.raises(ValueError, match="infill and block_causal are True"):
        replace(CONFIG, infill=True, stop_at_eos=False, block_causal=True)
    with pytest.raises(TypeError, match="block_causal is True, and MixingModel takes no blocks"):
        decode(MixingModel(), RAGGED, replace(CONFIG, block_causal=True))
    assert parse_cache(str(BlockCache())) == BlockCache()
    in_parts = {"policy": FastDLLMv2(0.9, 2), "cache": BlockPartsCache(2)}
    with pytest.raises(ValueError, match="cache is block-parts:2, and attention is in both directions: expected anoth"):
        decode(own_blocks, RAGGED, replace(CONFIG, **in_parts))
    for changes in (
        {"policy": TopK(1)},
        {"policy": BlockEditing()},
        {"cache": "block-parts"},
        {"block_add_threshold": 0.5},
    ):
        with pytest.raises(ValueError, match=r"cache is block-parts:.*expected a policy that goes through a block in"):
            replace(CONFIG, **(in_parts | changes))
    assert parse_cache("block-parts") == parse_cache(str(BlockPartsCache())) == BlockPartsCache(8)


@pytest.mark.parametrize("transformer", ["llada"], indirect=True)
def test_a_prompt_too_long_in_whole_blocks_is_named(own_blocks):
    own_blocks.config.max_position_embeddings = 18
    with pytest.raises(
        ValueError, match=r"prompts\[0\] has 2 tokens and .* together 20 in whole blocks of 4, more than"
    ):
        decode(own_blocks, [[1, 2]], CONFIG)


@pytest.mark.parametrize("transformer", ["llada"], indirect=True)
@pytest.mark.parametrize("policy", [BlockEditing(0.3, 0.0, 4), SoftParallel(0.5, 0.9), SoftParallel(0.9, 0.1)], ids=str)
def test_what_may_change_ends_nothing(own_blocks, policy):
    """Ends of sequence and stop strings of a block that is not finished yet, which may be gone when it is."""
    config = replace(CONFIG, policy=policy, cache=BlockCache())
    prompts = [[1 + place, *prompt] for place in range(8) for prompt in RAGGED[:3]]
    result = decode(own_blocks, prompts, config)
    for canvas, length in zip(result.canvases(), result.response_lengths.tolist(), strict=True):
        assert canvas[length - 1] == EOS or length == 16
        assert EOS not in canvas[: length - 1]
    assert (result.response_lengths < 16).any()

    class Digits:
        def decode(self, tokens, **_):
            return "".join(map(str, tokens))

    settings = replace(config, stop_strings=("5",), min_length=16)
    stopped = decode(own_blocks, prompts, settings, tokenizer=Digits())
    for canvas, length in zip(stopped.canvases(), stopped.response_lengths.tolist(), strict=True):
        assert canvas[length - 1] == 5 or length == 16
        assert 5 not in canvas[: length - 1]
    assert (stopped.response_lengths < 16).any()
