"""token_statistics against what public decoders compute, and masked_log_softmax against gathering first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import eager
import pytest
import torch

from tad_ext import masked_log_softmax, token_statistics

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

STATISTICS: dict[str, Callable[..., Any]] = {
    "float64 softmax": eager.statistics_float64,
    "float32 log_softmax": eager.statistics_float32,
    "that compiled": torch.compile(eager.statistics_float32),
    "tad_ext": token_statistics,
}


@pytest.mark.parametrize("path", STATISTICS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_token_statistics(benchmark: Any, sizes: dict[str, int], dtype: str, path: str) -> None:
    benchmark.group = f"token statistics, {dtype}"
    benchmark.extra_info.update(path=path, baseline=path != "tad_ext")
    logits = torch.randn(sizes["rows"], sizes["vocabulary"]).to(DTYPES[dtype])
    benchmark.pedantic(STATISTICS[path], args=(logits,), rounds=11, warmup_rounds=5)


@pytest.mark.parametrize("path", ["eager", "tad_ext"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_log_softmax(benchmark: Any, sizes: dict[str, int], dtype: str, path: str) -> None:
    benchmark.group = f"masked log-softmax of every second row, forward + backward, {dtype}"
    benchmark.extra_info.update(path=path, baseline=path != "tad_ext")
    logits = torch.randn(sizes["rows"], sizes["vocabulary"]).to(DTYPES[dtype]).requires_grad_()
    mask = torch.arange(sizes["rows"]) % 2 == 0
    function = eager.log_softmax_rows if path == "eager" else masked_log_softmax
    upstream = torch.ones(int(mask.sum()), sizes["vocabulary"], dtype=DTYPES[dtype])

    def step() -> None:
        logits.grad = None
        function(logits, mask).backward(upstream)

    benchmark.pedantic(step, rounds=11, warmup_rounds=10)


def test_copy(benchmark: Any, sizes: dict[str, int]) -> None:
    benchmark.group = "a copy of float32 logits of this size: the machine's memory bandwidth"
    source = torch.randn(sizes["rows"], sizes["vocabulary"])
    target = torch.empty_like(source)
    benchmark.extra_info.update(path="copy", bytes=2 * source.numel() * 4)
    benchmark.pedantic(target.copy_, args=(source,), rounds=11, warmup_rounds=5)
