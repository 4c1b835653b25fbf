"""The dtypes every operator is tested in."""

from __future__ import annotations

import pytest
import torch
from op_checks import DTYPES


@pytest.fixture(params=DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param
