"""Keys and values that are kept: exact where every forward computes all, and the windows that schemes ask for."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_cases import SEVERAL_BLOCKS, WITH_CACHES

from python_tests.decoding.conftest import RAGGED
from tad_ext.decoding import (
    ConfidenceThreshold,
    D3LLMCache,
    DecodeConfig,
    DelayedCache,
    DualCache,
    DualCacheAtBlock,
    FastDLLMDream,
    PrefixCache,
    PrefixCacheAtBlock,
    TopK,
    decode,
    parse_cache,
    parse_policy,
)
from tad_ext.decoding.sequence import SequenceProgress
from tad_ext.models.cache import KeyValueCache

pytestmark = pytest.mark.slow

SCHEMES = [
    PrefixCache(), DualCache(), DelayedCache(), PrefixCache(3), DualCache(2), DelayedCache(3, 1), D3LLMCache(),
    D3LLMCache(1, None),
]  # fmt: skip
CONFIG = DecodeConfig(gen_length=16, block_length=4, policy=ConfidenceThreshold(0.6), block_add_threshold=0.5)


def assert_same(results):
    for result in results[1:]:
        assert result.sequences == results[0].sequences
        assert torch.equal(result.reveal_step, results[0].reveal_step)
        assert torch.equal(result.forwards, results[0].forwards)


@pytest.mark.parametrize("scheme", [PrefixCache(1), DualCache(1), DelayedCache(1)])
def test_refreshing_in_every_forward_is_exact(transformer, scheme):
    assert_same([decode(transformer, RAGGED, replace(CONFIG, cache=cache)) for cache in (None, scheme)])


@pytest.mark.parametrize("scheme", [None, *SCHEMES], ids=str)
@pytest.mark.parametrize("hide_future_blocks", [False, True])
def test_the_batch_size_changes_nothing(transformer, scheme, hide_future_blocks):
    config = replace(CONFIG, cache=scheme, hide_future_blocks=hide_future_blocks)
    results = [decode(transformer, RAGGED, replace(config, batch_size=size)) for size in (1, 3, 8)]
    assert_same(results)
    assert (results[0].reveal_step > 0).all()


@pytest.mark.parametrize("transformer", ["dream"], indirect=True)
@pytest.mark.parametrize("text", WITH_CACHES)
def test_the_batch_size_changes_nothing_for_any_policy(transformer, text):
    policy = parse_policy(text)
    schemes = [None, PrefixCache(), DualCache(), DelayedCache(), D3LLMCache()]
    schemes += [PrefixCacheAtBlock(), DualCacheAtBlock()] if isinstance(policy, FastDLLMDream) else []
    for scheme in schemes:
        add = 1.0 if scheme in schemes[5:] or text not in SEVERAL_BLOCKS else 0.5
        config = replace(CONFIG, policy=policy, cache=scheme, gen_length=8, block_add_threshold=add)
        assert_same([decode(transformer, RAGGED[:3], replace(config, batch_size=size)) for size in (1, 3)])


@pytest.mark.parametrize("scheme", [PrefixCache(), DualCache()])
def test_a_cache_changes_results(transformer, scheme):
    """Or it would not be one: some row's keys are old."""
    exact, cached = (
        decode(transformer, RAGGED, replace(CONFIG, cache=cache, stop_at_eos=False)).sequences
        for cache in (None, scheme)
    )
    assert exact != cached


def test_a_window_attends_to_what_is_kept(transformer, device):
    """Logits of a window over an unchanged sequence are those of the whole; over a changed one, those of a row whose
    other keys and values are the old ones.
    """
    ids = torch.randint(0, 9, (2, 14), generator=torch.Generator().manual_seed(0)).to(device)
    lengths = torch.tensor([14, 11], device=device)
    cache = KeyValueCache(3, 20)
    positions = torch.tensor([5, 6, 7, 14 + 3, 14 + 4, -1], device=device)
    firsts = [transformer.prediction_columns(5), transformer.prediction_columns(3)]
    columns = torch.tensor([[min(first + i, 10) for i in range(6)] for first in firsts], device=device)
    with torch.inference_mode():
        transformer.hidden_rows(ids, lengths=lengths, cache=cache)
        expected = transformer.hidden_rows(ids, lengths=lengths, positions=positions)
        found = transformer.hidden_rows(ids, lengths=lengths, positions=positions, cache=cache, columns=columns)
        torch.testing.assert_close(found[:-1], expected[:-1], rtol=1e-5, atol=1e-5)
        changed = ids.clone()
        changed[:, 0] = (changed[:, 0] + 1) % 9  # outside the windows: not seen
        found = transformer.hidden_rows(changed, lengths=lengths, positions=positions, cache=cache, columns=columns)
        torch.testing.assert_close(found[:-1], expected[:-1], rtol=1e-5, atol=1e-5)
        changed[:, 6] = (changed[:, 6] + 1) % 9  # inside both
        found = transformer.hidden_rows(changed, lengths=lengths, positions=positions, cache=cache, columns=columns)
        assert ((found[:-1] - expected[:-1]).abs().amax(1) > 1e-3).all()
        size = sum(tensor.nbytes for layer in cache._layers for tensor in layer)
        assert size == 2 * 2 * 3 * 2 * 20 * 8 * 4  # keys and values, layers, rows, heads, columns, size, bytes


def progress(unfinished, created, history, refreshed):
    return SequenceProgress(
        0, [0] * 21, 5, 5, 16, masks=1, eligible=1, first_mask=0, created=created, unfinished=unfinished,
        forwards=len(history), history=history, refreshed=refreshed,
    )  # fmt: skip


def test_windows():
    fresh = progress(0, 1, [], None)
    assert all(scheme.window(fresh, 4) is None for scheme in SCHEMES)
    # Five forwards: the whole row in the first, block 0 finished in the third; blocks 1 and 2 are active.
    row = progress(1, 3, [0, 0, 0, 1, 1], 0)
    assert PrefixCache().window(row, 4) is None, "block 1 was entered without a whole row"
    assert DualCache().window(row, 4) is None
    row.refreshed = 3
    assert PrefixCache().window(row, 4) == (1, 4)
    assert DualCache().window(row, 4) == (1, 3)
    assert PrefixCache(2).window(row, 4) is None
    assert DualCache(3).window(row, 4) == (1, 3)
    row.refreshed = 0
    assert DelayedCache(None, delay=0).window(row, 4) == (1, 4)
    assert DelayedCache(None, delay=2).window(row, 4) == (1, 4), "block 0 has been finished before the last two"
    assert DelayedCache(None, delay=3).window(row, 4) == (0, 4)
    assert DelayedCache(5).window(row, 4) is None
    assert DelayedCache(6).window(row, 4) == (1, 4)
    assert DelayedCache(None, delay=9).window(row, 4) == (0, 4)


def test_d3llms_windows():
    """Delay 2: the prompt waits in forwards 1 and 2, and is kept in 2. Block 0 is finished in forward 3: it waits in 4
    and 5, and is kept in 6, in which block 1, finished in 4, begins to wait: its wait is over in 8.
    """
    history = [0, 0, 0, 1, 2, 2, 2, 2, 2, 2]  # the first unfinished block before each forward
    whole = None
    for refresh_every, windows in (
        (None, [whole, whole, (0, 4), whole, whole, (0, 4), whole, (1, 4), (2, 4), (2, 4)]),
        (3, [whole, whole, whole, whole, whole, (0, 4), whole, (1, 4), whole, (2, 4)]),
    ):
        row, scheme = progress(0, 4, [], None), D3LLMCache(2, refresh_every)
        for unfinished, window in zip(history, windows, strict=True):
            row.unfinished = unfinished
            assert scheme.window(row, 4) == window, row.forwards + 1
            row.history.append(unfinished)
            row.forwards += 1


class Counting:
    """A scheme that notes what it answers."""

    def __init__(self, scheme):
        self.scheme, self.windows = scheme, []

    def window(self, row, blocks):
        self.windows.append(self.scheme.window(row, blocks))
        return self.windows[-1]


@pytest.mark.parametrize(("scheme", "whole"), [(PrefixCache(), 4), (DualCache(), 4), (DelayedCache(None), 1)])
def test_how_often_the_whole_row_is_computed(transformer, scheme, whole):
    """One token per forward, four blocks of four: at each block's beginning, or at the first only."""
    counting = Counting(scheme)
    config = DecodeConfig(gen_length=16, block_length=4, policy=TopK(1), stop_at_eos=False, cache=counting)
    result = decode(transformer, [[1, 2, 3]], config)
    assert result.forwards.tolist() == [16]
    assert len(counting.windows) == 16
    assert counting.windows.count(None) == whole
    assert counting.windows[-1] == (3, 4)


@settings(deadline=None)
@given(st.one_of(st.builds(PrefixCache, st.none() | st.integers(1, 99)), st.builds(DualCache, st.integers(1, 99)),
                 st.builds(DelayedCache, st.none() | st.integers(1, 99), st.integers(0, 9)),
                 st.builds(D3LLMCache, st.integers(1, 9), st.none() | st.integers(1, 99)),
                 st.builds(PrefixCacheAtBlock), st.builds(DualCacheAtBlock)))  # fmt: skip
def test_strings_name_schemes(scheme):
    assert parse_cache(str(scheme)) == scheme


def test_strings_of_schemes():
    assert parse_cache("none") is None
    assert parse_cache("dual") == DualCache()
    assert parse_cache("delayed") == DelayedCache(32, 2)
    assert parse_cache("delayed:16") == DelayedCache(16, 2)
    assert parse_cache("delayed:never,1") == DelayedCache(None, 1)
    assert parse_cache("d3llm") == D3LLMCache(2, 3)
    assert parse_cache("d3llm:1,never") == D3LLMCache(1, None)
    assert parse_cache("dual-at-block") == DualCacheAtBlock()
    for text in ("paged", "dual:x", "dual:0", "dual:1,2", "delayed:4,-1", "d3llm:0", "d3llm:never", ""):
        with pytest.raises(ValueError, match=f"cache '{text}'.*expected"):
            parse_cache(text)
    with pytest.raises(TypeError, match="cache must be a string"):
        parse_cache(None)


def test_bad_schemes(transformer, mixing_model):
    with pytest.raises(ValueError, match=r"DualCache.refresh_every must be an integer in \[1, .* or none, got 0"):
        DualCache(0)
    with pytest.raises(ValueError, match=r"DelayedCache.delay must be an integer in \[0, 2147483647\], got -1"):
        DelayedCache(delay=-1)
    for changes in ({}, {"policy": FastDLLMDream()}, {"policy": TopK(1), "block_add_threshold": 1.0}):
        with pytest.raises(
            ValueError, match=r"cache is prefix-at-block.*expected a policy that reveals a block's first"
        ):
            replace(CONFIG, cache=PrefixCacheAtBlock(), **changes)
    assert replace(CONFIG, cache="dual").cache == DualCache()
    with pytest.raises(ValueError, match="cache 'double': unknown name 'double'"):
        replace(CONFIG, cache="double")
    with pytest.raises(TypeError, match="cache must be None or a scheme"):
        replace(CONFIG, cache=DualCache)
    with pytest.raises(ValueError, match="expected no cache with guidance"):
        replace(CONFIG, cache=DualCache(), guidance=1.0)
    with pytest.raises(TypeError, match="MixingModel keeps no keys and values"):
        decode(mixing_model(), [[1]], replace(CONFIG, cache=DualCache()))
