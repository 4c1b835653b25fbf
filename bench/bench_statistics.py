"""token_statistics against what public decoders compute, and masked_log_softmax against gathering first."""

from __future__ import annotations

from typing import Any

import pytest
import workloads
from workloads import DTYPES


@pytest.mark.parametrize("path", ["float64 softmax", "float32 log_softmax", "that compiled", "tad_ext"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_token_statistics(benchmark: Any, sizes: dict[str, int], dtype: str, path: str) -> None:
    benchmark.group = f"token statistics, {dtype}"
    work = workloads.statistics(sizes["rows"], sizes["vocabulary"], DTYPES[dtype])
    benchmark.extra_info.update(path=path, baseline=path != "tad_ext", bytes=work.bytes, elements=work.elements)
    benchmark.pedantic(work.implementations[path].run, rounds=11, warmup_rounds=5)


@pytest.mark.parametrize("path", ["eager", "tad_ext"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_log_softmax(benchmark: Any, sizes: dict[str, int], dtype: str, path: str) -> None:
    benchmark.group = f"masked log-softmax of every second row, forward + backward, {dtype}"
    work = workloads.log_softmax(sizes["rows"] // 2, sizes["vocabulary"], DTYPES[dtype], by_mask=True)
    benchmark.extra_info.update(path=path, baseline=path != "tad_ext", bytes=work.bytes, elements=work.elements)
    benchmark.pedantic(work.implementations[path].run, rounds=11, warmup_rounds=10)


def test_copy(benchmark: Any, sizes: dict[str, int]) -> None:
    benchmark.group = "a copy of float32 logits of this size: the machine's memory bandwidth"
    work = workloads.copy(sizes["rows"] * sizes["vocabulary"])
    benchmark.extra_info.update(path="copy", bytes=work.bytes)
    benchmark.pedantic(work.implementations["copy"].run, rounds=11, warmup_rounds=5)
