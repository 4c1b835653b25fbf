"""Recorded steps decode as steps do. Where there is no GPU, its graphs are imitated: every operation of a step is
written down with the tensors it was given, and replayed on the same memory.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from python_tests.decoding.conftest import RAGGED
from tad_ext.decoding import (
    ConfidenceThreshold,
    DecodeConfig,
    DelayedCache,
    DualCache,
    EntropyThreshold,
    PrefixCache,
    TopK,
    cuda_graphs,
    decode,
    inputs,
    loop,
)
from tad_ext.ops import backend_info

CONFIG = DecodeConfig(gen_length=16, block_length=4, policy=ConfidenceThreshold(0.6), block_add_threshold=0.5)


class Operations(TorchDispatchMode):
    """Writes down every operation; `replay` repeats them all, results into the memory of the first results."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        options = options or {}
        assert function is not torch.ops.aten._local_scalar_dense.default, "a step looks at a value"
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

    real = cuda_graphs.CudaGraphs(torch.device(device)) if torch.device(device).type == "cuda" else imitation

    def record(run):
        counts["recorded"] += 1
        replay = real(run)

        def counted():
            counts["replayed"] += 1
            return replay()

        return counted

    def recorded_step(step, device):
        batch, forward = step.batch, step.forward
        imitation.tensors = lambda: [
            batch.input_ids, batch.canvas, batch.positions, batch.state.reveal_step, batch.state.forwards,
            batch.state.blocks, batch.state.done, *batch.state.memory.values(),
            *(tensor for layer in (forward.cache._layers if forward.cache else []) for tensor in layer),
        ]  # fmt: skip
        return cuda_graphs.CapturedStep(step, device, record)

    monkeypatch.setattr(loop, "CapturedStep", recorded_step)
    if torch.device(device).type != "cuda":
        monkeypatch.setattr(inputs, "GRAPH_DEVICES", ("cpu",))
    return counts


@pytest.mark.skipif(not backend_info()["compiled"], reason="the reference operators look at values")
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
    config = replace(CONFIG, batch_size=3, **changes)
    expected = decode(transformer, RAGGED, config)
    result = decode(transformer, RAGGED, replace(config, cuda_graphs=True))
    assert result.sequences == expected.sequences
    assert torch.equal(result.reveal_step, expected.reveal_step)
    assert torch.equal(result.forwards, expected.forwards)
    assert recorder["replayed"] >= recorder["recorded"] > 0


class Letters:
    def decode(self, tokens, skip_special_tokens):
        return "".join(chr(ord("a") + token) for token in tokens)


@pytest.mark.parametrize("changes", [{"cache": DualCache()}, {"cache": DelayedCache()}, {"stop_strings": ["a", "f"]}])
@pytest.mark.parametrize("transformer", ["dream"], indirect=True)
def test_idle_rows_of_a_recording_leave_the_others_alone(transformer, recorder, changes):
    """Eight places for five rows and fewer, of very unequal lengths, which move when others finish."""
    prompts = [[7] * 14, [6] * 13, [1], [2], [3], [4, 5], [8] * 12, [1, 2, 3], [4] * 14]
    config = replace(CONFIG, batch_size=8, **changes)
    expected = decode(transformer, prompts, config, tokenizer=Letters())
    result = decode(transformer, prompts, replace(config, cuda_graphs=True), tokenizer=Letters())
    assert result.sequences == expected.sequences
    assert torch.equal(result.forwards, expected.forwards)


def test_a_policys_memory_is_part_of_the_recording(transformer, recorder):
    class Remembering:
        def __call__(self, statistics, state):
            count = state.memory.setdefault("count", torch.zeros_like(state.forwards))
            count += 1
            enough = (count % 3 == 0)[:, None]
            return statistics.confidence, state.eligible & enough

    config = replace(CONFIG, policy=Remembering(), batch_size=2)
    expected = decode(transformer, RAGGED, config)
    result = decode(transformer, RAGGED, replace(config, cuda_graphs=True))
    assert result.sequences == expected.sequences
    assert torch.equal(result.reveal_step, expected.reveal_step)
    assert recorder["replayed"] > recorder["recorded"]


def test_graphs_need_a_gpu(mixing_model):
    cpu_model = mixing_model()
    cpu_model.device = torch.device("cpu")
    with pytest.raises(ValueError, match="cuda_graphs is True and the model is on cpu"):
        decode(cpu_model, [[1]], DecodeConfig(gen_length=4, block_length=4, cuda_graphs=True))
