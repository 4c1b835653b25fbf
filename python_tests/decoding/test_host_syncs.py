"""A step waits for the device once, and once more where rows finish: seen by listing the calls that would."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode

from tad_ext.decoding import ConfidenceThreshold, DecodeConfig, EntropyThreshold, TopK, decode
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM
from tad_ext.ops import backend_info

WAITING = {"item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "unique", "equal", "allclose"}
WAITING |= {"__bool__", "__int__", "__float__", "__index__"}


class HostSyncs(TorchFunctionMode):
    """Counts calls of tensor methods that read values on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        if name in WAITING:
            self.calls[name] += 1
        return function(*arguments, **(options or {}))


@pytest.mark.skipif(not backend_info()["compiled"], reason="the reference operators are written for reading")
@pytest.mark.parametrize("policy", [TopK(2), ConfidenceThreshold(0.2), EntropyThreshold(2.0)])
def test_one_sync_a_step(device, policy):
    torch.manual_seed(0)
    config = TinyDiffusionConfig(vocab_size=12, num_hidden_layers=1, mask_token_id=10, eos_token_ids=[9])
    model = TinyDiffusionLM(config).to(device)
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    settings = DecodeConfig(gen_length=12, block_length=4, policy=policy, block_add_threshold=0.5, temperature=1.0)
    with HostSyncs() as syncs:
        result = decode(model, [[1, 2], [3], [4, 5, 6]], settings)
    steps_with_finished_rows = len(set(result.forwards.tolist()))
    assert syncs.calls == {"tolist": len(forwards) + steps_with_finished_rows}
