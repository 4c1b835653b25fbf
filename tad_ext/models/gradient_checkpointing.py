"""Gradient checkpointing: less memory for a training step, for another forward (Chen et al., arXiv 1604.06174)."""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from tad_ext.models.lora import base_model


def enable_gradient_checkpointing(model: nn.Module) -> None:
    """Keep of each layer only its input, (B, L, D), and compute the layer again in backward; in training mode only.

    The gradients are the same, dropout included. `model` is a masked diffusion model or a PeftModel of one (TypeError
    for anything else), before or after its adapter was added. Call `backward()` outside of `lora.teacher`, where a
    layer would be computed again without its adapter.
    """
    # Not the reentrant kind, which needs an input with a gradient, and embeddings are frozen. transformers' public
    # switch would give them one, and the first layer a gradient that nobody needs.
    base: Any = base_model(model)
    base._set_gradient_checkpointing(gradient_checkpointing_func=partial(checkpoint, use_reentrant=False))
