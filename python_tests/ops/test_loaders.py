"""Rows that the CUDA kernels keep come by bulk copies, a row ahead or not, or by threads, as TAD_CUDA_LOADER says."""

import pytest
import torch
from every_operator import Case, every_operator
from op_checks import CUDA_ON_HOST


@pytest.fixture(autouse=True)
def _has_loaders(device: str) -> None:
    if device == "cpu" and not CUDA_ON_HOST:
        pytest.skip("the CPU's kernels have no loaders")


every_case = pytest.mark.parametrize("case", every_operator(vocabulary=520), ids=str)  # whole groups


@every_case
def test_all_give_the_same_bits(case: Case, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for loader in ("ahead", "bulk", "threads", ""):
        monkeypatch.setenv("TAD_CUDA_LOADER", loader)
        results.append(case.run(*(tensor.to(device) for tensor in case.inputs(1))))
    first, *others = results
    for other in others:
        torch.testing.assert_close(other, first, rtol=0, atol=0, equal_nan=True)


@every_case
def test_another_is_refused(case: Case, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAD_CUDA_LOADER", "tma")
    with pytest.raises(ValueError, match="TAD_CUDA_LOADER is 'tma', expected ahead, bulk or threads"):
        case.run(*(tensor.to(device) for tensor in case.inputs(1)))
