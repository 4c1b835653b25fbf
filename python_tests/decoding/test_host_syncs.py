"""A step waits for the device once, and once more where rows finish: seen by listing the calls that would."""

from dataclasses import replace

import pytest
import torch
from host_syncs import HostSyncs
from policy_cases import EVERY_POLICY, SEVERAL_BLOCKS

from tad_ext.decoding import DecodeConfig, decode, parse_policy
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM
from tad_ext.ops import backend_info


@pytest.mark.skipif(not backend_info()["compiled"], reason="the reference operators are written for reading")
@pytest.mark.parametrize(
    ("text", "several"),
    [*((text, {}) for text in EVERY_POLICY), ("topk:1", {"drafts": 3}), ("lopa:0.3", {"branches": 3})],
)
def test_one_sync_a_step(device, text, several):
    policy = parse_policy(text)
    torch.manual_seed(0)
    config = TinyDiffusionConfig(vocab_size=12, num_hidden_layers=1, mask_token_id=10, eos_token_ids=[9])
    model = TinyDiffusionLM(config).to(device)
    forwards = []
    model.register_forward_hook(lambda *_: forwards.append(1))
    settings = DecodeConfig(gen_length=12, block_length=4, policy=policy, temperature=1.0, **several)
    if text in SEVERAL_BLOCKS:
        settings = replace(settings, block_add_threshold=0.5)
    with HostSyncs() as syncs:
        result = decode(model, [[1, 2], [3], [4, 5, 6]], settings)
    steps_with_finished_rows = len(set(result.forwards.tolist()))
    assert syncs.calls == {"tolist": len(forwards) + steps_with_finished_rows}
