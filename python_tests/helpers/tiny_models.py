"""A TinyDiffusionLM with random weights, and what tests of adapters ask of it."""

import torch
from torch import Tensor, nn

from tad_ext.models.lora import base_model
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM

IDS = torch.arange(24).reshape(2, 12) % 20


def tiny_model(seed: int = 0, **changes: object) -> TinyDiffusionLM:
    sizes = {"hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = TinyDiffusionConfig(**{**sizes, "mask_token_id": 23, "eos_token_ids": [22], **changes})
        return TinyDiffusionLM(config).eval()


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return base_model(model)(IDS).logits


def trainable(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
