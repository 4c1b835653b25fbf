"""Results depend neither on where tensors lie in memory nor on what was there before."""

from collections.abc import Iterator

import pytest
import torch
from awkward_sizes import misaligned
from every_operator import Case, every_operator
from torch import Tensor

every_case = pytest.mark.parametrize("name", [case.name for case in every_operator()])


def case_of(name: str, vocabulary: int, dtype: torch.dtype) -> Case:
    return next(case for case in every_operator(vocabulary, dtype) if case.name == name)


def assert_same(name: str, found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        if name == "linear loss":  # a BLAS library may choose its kernels by alignment
            torch.testing.assert_close(a, b)
        else:
            assert torch.equal(a, b)


@every_case
@pytest.mark.parametrize("vocabulary", [7, 515, 4099])
def test_alignment(device: str, name: str, dtype: torch.dtype, vocabulary: int) -> None:
    case = case_of(name, vocabulary, dtype)
    inputs = [tensor.to(device) for tensor in case.inputs(0)]
    assert_same(name, case.run(*[misaligned(tensor) for tensor in inputs]), case.run(*inputs))


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """New memory holds NaN, or the largest integer."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@every_case
@pytest.mark.usefixtures("poisoned_memory")
def test_new_memory_is_written_before_it_is_read(device: str, name: str, dtype: torch.dtype) -> None:
    assert torch.empty(3, device=device).isnan().all()
    case = case_of(name, 515, dtype)
    inputs = [tensor.to(device) for tensor in case.inputs(0)]
    found = case.run(*inputs)
    assert not any(tensor.isnan().any() for tensor in found)
    torch.use_deterministic_algorithms(False)
    assert_same(name, found, case.run(*inputs))
