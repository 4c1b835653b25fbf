"""The dtypes every operator is tested in, and the check of indices on a device."""

import pytest
import torch
from op_checks import DTYPES


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def indices_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU too, where looking at an index waits for the device and is done on request only."""
    monkeypatch.setenv("TAD_EXT_DEBUG", "1")
