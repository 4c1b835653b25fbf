"""Recorded steps decode as steps do. Where there is no GPU, its graphs are imitated: every operation of a step is
written down with the tensors it was given, and replayed on the same memory.
"""

import multiprocessing
import warnings
import weakref
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest
import torch
from policy_cases import OF_ONE_LENGTH, SEVERAL_BLOCKS, WITH_CACHES
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from python_tests.decoding.conftest import RAGGED, random_transformer
from tad_ext.decoding import (
    ConfidenceThreshold,
    D3LLMCache,
    DecodeConfig,
    DelayedCache,
    DualCache,
    DualCacheAtBlock,
    EntropyThreshold,
    FastDLLMDream,
    PrefixCache,
    PrefixCacheAtBlock,
    TopK,
    cuda_graphs,
    decode,
    decode_stream,
    inputs,
    loop,
    parse_policy,
)
from tad_ext.models.llada import LLaDAModelLM
from tad_ext.ops import backend_info

pytestmark = pytest.mark.skipif(not backend_info()["compiled"], reason="the reference operators look at values")
CONFIG = DecodeConfig(gen_length=16, block_length=4, policy=ConfidenceThreshold(0.6), block_add_threshold=0.5)


class Operations(TorchDispatchMode):
    """Writes down every operation; `replay` repeats them all, results into the memory of the first results."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        assert function is not torch.ops.aten._local_scalar_dense.default, "a step looks at a value"
        assert function is not torch.ops.aten.lift_fresh.default, "a step copies a number of the host"
        result = function(*arguments, **options)
        self.calls.append((function, arguments, options, result))
        return result

    def replay(self):
        for function, arguments, options, result in self.calls:
            given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((arguments, options))}
            for old, new in zip(_tensors(result), _tensors(function(*arguments, **options)), strict=True):
                if old.untyped_storage().data_ptr() not in given:  # neither a view nor written in place
                    old.copy_(new)


def _tensors(tree):
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@pytest.fixture
def recorder(device, monkeypatch):
    """Counts recordings and replays; on the CPU takes the place of CUDA graphs."""
    counts = {"recorded": 0, "replayed": 0}

    def imitation(run):
        operations = Operations()
        before = [tensor.clone() for tensor in imitation.tensors()]
        with operations:
            result = run()
        for tensor, old in zip(imitation.tensors(), before, strict=True):
            tensor.copy_(old)  # a graph that is recorded is not executed

        def replay():
            operations.replay()
            return result.clone()

        return replay

    def counting(real):
        def record(run):
            counts["recorded"] += 1
            replay = real(run)

            def counted():
                counts["replayed"] += 1
                return replay()

            return counted

        return record

    def recorded_step(step, model, config):
        batch = step.batch
        imitation.tensors = lambda: [
            *batch._tensors(), batch.positions,
            *(tensor for layer in (batch.cache._layers if batch.cache else []) for tensor in layer),
        ]  # fmt: skip
        return cuda_graphs.CapturedStep(step, model, config)

    on_gpu, real = torch.device(device).type == "cuda", cuda_graphs.CudaGraphs
    monkeypatch.setattr(cuda_graphs, "CudaGraphs", lambda device: counting(real(device) if on_gpu else imitation))
    monkeypatch.setattr(loop, "CapturedStep", recorded_step)
    if not on_gpu:
        monkeypatch.setattr(inputs, "GRAPH_DEVICES", ("cpu",))
    return counts


def assert_same(result, expected):
    assert result.sequences == expected.sequences
    assert torch.equal(result.reveal_step, expected.reveal_step)
    assert torch.equal(result.forwards, expected.forwards)


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": TopK(1), "block_add_threshold": 1.0},
        {"policy": TopK(1), "block_add_threshold": 1.0, "cache": DualCache(3)},
        {"policy": EntropyThreshold(1.0), "hide_future_blocks": True, "cache": PrefixCache()},
        {"temperature": 1.0, "top_p": 0.9, "min_length": 3, "cache": DelayedCache()},
        {"temperature": 1.0, "sync_every": 3, "hide_future_blocks": True},
    ],
    ids=["one per step", "dual", "prefix", "delayed, sampled", "looking less often"],
)
def test_recorded_steps_decode_the_same(transformer, recorder, changes):
    config = replace(CONFIG, batch_size=3, cuda_graphs=False, **changes)
    expected = decode(transformer, RAGGED, config)
    assert_same(decode(transformer, RAGGED, replace(config, cuda_graphs=True)), expected)
    assert recorder["replayed"] >= recorder["recorded"] > 0


class Letters:
    def decode(self, tokens, skip_special_tokens):
        return "".join(chr(ord("a") + token) for token in tokens)


@pytest.mark.parametrize("changes", [{"cache": DualCache()}, {"cache": DelayedCache()}, {"stop_strings": ["a", "f"]}])
@pytest.mark.parametrize("transformer", ["dream"], indirect=True)
def test_idle_rows_of_a_recording_leave_the_others_alone(transformer, recorder, changes):
    """Eight places for five rows and fewer, of very unequal lengths, which move when others finish."""
    prompts = [[7] * 14, [6] * 13, [1], [2], [3], [4, 5], [8] * 12, [1, 2, 3], [4] * 14]
    config = replace(CONFIG, batch_size=8, cuda_graphs=False, **changes)
    expected = decode(transformer, prompts, config, tokenizer=Letters())
    assert_same(decode(transformer, prompts, replace(config, cuda_graphs=True), tokenizer=Letters()), expected)


def test_a_policys_memory_is_part_of_the_recording(transformer, recorder):
    class Remembering:
        def __call__(self, statistics, state):
            count = state.memory.setdefault("count", torch.zeros_like(state.forwards))
            count += 1
            enough = (count % 3 == 0)[:, None]
            return statistics.confidence, state.eligible & enough

    config = replace(CONFIG, policy=Remembering(), batch_size=2)
    expected = decode(transformer, RAGGED, config)
    assert recorder["recorded"] == 0, "a policy of one's own is not recorded unless asked for"
    assert_same(decode(transformer, RAGGED, replace(config, cuda_graphs=True)), expected)
    assert recorder["replayed"] > recorder["recorded"]


CACHES = [None, PrefixCache(), DualCache(), DelayedCache(), D3LLMCache()]


@pytest.mark.slow
@pytest.mark.parametrize("text", OF_ONE_LENGTH)
def test_by_default_every_policy_decodes_the_same_with_every_cache(device, recorder, text):
    any_cache, policy = text in WITH_CACHES, parse_policy(text)
    model = random_transformer("dream" if any_cache else "llada", 1, device)
    at_block = [PrefixCacheAtBlock(), DualCacheAtBlock()] if isinstance(policy, FastDLLMDream) else []
    for cache in CACHES + at_block if any_cache else [None]:
        add = 1.0 if cache in at_block or text not in SEVERAL_BLOCKS else 0.5
        config = replace(CONFIG, policy=policy, cache=cache, gen_length=8, block_add_threshold=add, batch_size=2)
        expected = decode(model, RAGGED[:4], replace(config, cuda_graphs=False))
        assert_same(decode(model, RAGGED[:4], config), expected)
    assert recorder["replayed"] >= recorder["recorded"] > 0


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": 1.5},
        {"temperature": 0.8, "top_k": 3, "min_length": 4},
        {"hide_future_blocks": True, "sync_every": 2},
        {"infill": True, "stop_at_eos": False},
        {"forced_progress": "blocks", "decoded_token_threshold": 0.5, "stop_at_eos": False},
    ],
    ids=["guidance", "sampling", "hidden blocks", "infilling", "forced progress"],
)
def test_by_default_every_way_of_decoding_is_the_same(transformer, recorder, changes):
    prompts = [[*prompt, 10, 10, 3, 10, 10, 10, 10] for prompt in RAGGED] if changes.get("infill") else RAGGED
    config, seen, expected_views = replace(CONFIG, batch_size=2, **changes), [], []

    def shown(views):
        return lambda numbers, canvas, steps: views.append((numbers, canvas.tolist(), steps.tolist()))

    expected = decode(transformer, prompts, replace(config, cuda_graphs=False), watch=shown(expected_views))
    assert_same(decode(transformer, prompts, config, watch=shown(seen)), expected)
    assert seen == expected_views
    assert recorder["replayed"] >= recorder["recorded"] > 0


def test_by_default_steps_of_many_columns_are_not_recorded(transformer, recorder, monkeypatch):
    """Three sequences of 16 columns and more have 48 of them, and one has fewer."""
    monkeypatch.setattr(cuda_graphs, "MOST_COLUMNS", 40)
    config = replace(CONFIG, policy=TopK(1), batch_size=4, stop_at_eos=False)
    decode(transformer, [[1]] * 3, config)
    assert recorder == {"recorded": 0, "replayed": 0}
    decode(transformer, [[1]] * 3, replace(config, cuda_graphs=True))
    assert recorder["recorded"] > 0
    recorder["recorded"] = 0
    decode(transformer, [[1]], config)
    assert recorder["recorded"] > 0


def unrecordable(device):
    """The second recording fails, as one does when a forward waits for the device."""
    attempts = []

    def record(run):
        attempts.append(run)
        if len(attempts) > 2:
            raise AssertionError("tried again")
        if len(attempts) == 2:
            raise RuntimeError("operation not permitted when stream is capturing\nand more")
        return run  # the step itself, as what a graph would launch

    return record


@pytest.mark.parametrize("cache", [None, DualCache()])
def test_decoding_goes_on_where_recording_fails(transformer, recorder, monkeypatch, cache):
    config = replace(CONFIG, batch_size=2, cache=cache, gen_length=16)
    expected = decode(transformer, RAGGED, replace(config, cuda_graphs=False))
    monkeypatch.setattr(cuda_graphs, "CudaGraphs", unrecordable)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert_same(decode(transformer, RAGGED, config), expected)
    message = "recording one failed: operation not permitted when stream is capturing. cuda_graphs=False does not try."
    assert [str(warning.message).endswith(message) for warning in caught] == [True]
    with pytest.raises(RuntimeError, match="operation not permitted"):
        decode(transformer, RAGGED, replace(config, cuda_graphs=True))


def test_recordings_end_with_the_decode(transformer, recorder, monkeypatch):
    real, alive = loop.CapturedStep, []

    def followed(*arguments):
        alive.append(weakref.ref(step := real(*arguments)))
        return step

    monkeypatch.setattr(loop, "CapturedStep", followed)
    decode(transformer, RAGGED, CONFIG)
    stream = decode_stream(transformer, RAGGED, replace(CONFIG, batch_size=2))
    next(stream)
    assert alive[0]() is None
    assert alive[1]() is not None
    stream.close()
    assert alive[1]() is None


class Waiting(LLaDAModelLM):
    """A model that looks at a value in every forward."""

    def hidden_rows(self, *arguments, **options):
        hidden = super().hidden_rows(*arguments, **options)
        assert hidden.isfinite().all().item()
        return hidden


@pytest.mark.gpu
@pytest.mark.parametrize("cache", [None, DualCache()])
def test_a_forward_that_waits_is_decoded_without_graphs(cache):
    """In a process of its own: a recording that fails may leave torch unusable."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(fail_to_record, cache).result()


def fail_to_record(cache):
    """Tokens are the same; and torch is as it was: its stream, its memory, its random numbers. Later decodes record."""
    model = random_transformer("llada", 1, "cuda")
    config = replace(CONFIG, batch_size=2, cache=cache)
    expected = decode(model, RAGGED, replace(config, cuda_graphs=False))
    stream = torch.cuda.current_stream()
    model.__class__ = Waiting
    for graphs in ("auto", True, "auto"):
        if graphs == "auto":
            with pytest.warns(RuntimeWarning, match="recording one failed"):
                assert_same(decode(model, RAGGED, config), expected)
        else:
            with pytest.raises(RuntimeError):
                decode(model, RAGGED, replace(config, cuda_graphs=True))
        assert torch.cuda.current_stream() == stream
        assert not torch.cuda.is_current_stream_capturing()
        torch.cuda.empty_cache()
        torch.rand(3, device="cuda").sum().item()
    model.__class__ = LLaDAModelLM
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_same(decode(model, RAGGED, replace(config, cuda_graphs=True)), expected)


@pytest.mark.gpu
def test_graphs_give_their_memory_back():
    model = random_transformer("llada", 1, "cuda")

    def left():
        torch.cuda.empty_cache()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    decode(model, RAGGED, CONFIG)  # takes what the libraries keep
    allocated, reserved = left()
    for _ in range(40):  # more than torch has streams
        decode(model, RAGGED, CONFIG)
    assert left()[0] == allocated
    assert left()[1] < reserved + 2**26  # pools of forty decodes would be far more
