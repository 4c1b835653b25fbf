"""fused_tad_loss, forward and backward, against the pure-PyTorch path and torch.compile of it."""

from __future__ import annotations

from typing import Any

import pytest
import workloads
from memory import peak_bytes
from workloads import DTYPES


@pytest.mark.parametrize("path", ["eager", "torch.compile", "tad_ext"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_tad_loss(benchmark: Any, sizes: dict[str, int], dtype: str, path: str) -> None:
    benchmark.group = f"TAD loss, forward + backward, {dtype}"
    work = workloads.tad_loss(sizes["rows"], sizes["vocabulary"], DTYPES[dtype])
    benchmark.extra_info.update(path=path, baseline=path != "tad_ext", bytes=work.bytes, elements=work.elements)
    step = work.implementations[path].run

    # Many warm-up rounds: until the allocator keeps the gradient's pages, page faults cost more than the loss.
    benchmark.pedantic(step, rounds=11, warmup_rounds=10)
    work.forget()
    logits_bytes = sizes["rows"] * sizes["vocabulary"] * DTYPES[dtype].itemsize
    benchmark.extra_info["memory_share"] = peak_bytes(step) / logits_bytes - 1  # one gradient is the result
