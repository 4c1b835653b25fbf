"""What tests of models share."""

import pytest

from tad_ext.models import last_layer


@pytest.fixture
def attention_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's attention in bfloat16 on a CPU, too: for comparisons in which another rounding would drown."""
    monkeypatch.setattr(last_layer, "cpu_attention_fits", lambda *_: False)
