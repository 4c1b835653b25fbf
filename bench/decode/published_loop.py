"""The published decoding loop, as LLaDA's own code and those that followed it have it: the baseline of `bench.decode`
and `bench.collect`.

In every forward: logits of all positions, prompt included; a softmax of all of them, and with a temperature Gumbel
noise for all of them in float64; the most confident masks of the block, row by row, with a number that the host reads
from the device; boolean masks that the host waits for. One sequence at a time. The model's layers are the same as
everyone's.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


@torch.inference_mode()
def published_loop(
    model: Any,
    prompt: Tensor,
    blocks: Sequence[Sequence[int]],
    *,
    block_length: int,
    temperature: float = 0.0,
    dtype: torch.dtype | None = torch.float64,
) -> Iterator[Tensor]:
    """Decodes one prompt, (1, P) int64; gives the sequence so far, (1, P + G), after every forward.

    Args:
        blocks: of each block of `block_length` positions, the tokens that each of its forwards reveals.
        dtype: of the softmax; None: the model's.
    """
    mask_token_id, length = model.config.mask_token_id, prompt.shape[1]
    x = torch.full((1, length + len(blocks) * block_length), mask_token_id, device=prompt.device)
    x[:, :length] = prompt
    for block, counts in enumerate(blocks):
        block_end = length + (block + 1) * block_length
        transfer_counts = torch.tensor([list(counts)], device=x.device)
        for step in range(len(counts)):
            masked = x == mask_token_id
            logits = model(x).logits
            x0 = (_with_gumbel_noise(logits, temperature) if temperature else logits).argmax(dim=-1)
            p = torch.softmax(logits.to(dtype or logits.dtype), dim=-1)
            x0_p = p.gather(-1, x0[..., None])[..., 0]
            x0_p[:, block_end:] = -torch.inf
            x0 = torch.where(masked, x0, x)
            confidence = torch.where(masked, x0_p, -torch.inf)
            transfer = torch.zeros_like(masked)
            for row in range(len(x)):
                chosen = confidence[row].topk(int(transfer_counts[row, step])).indices
                transfer[row, chosen] = True
            x[transfer] = x0[transfer]
            yield x


def _with_gumbel_noise(logits: Tensor, temperature: float) -> Tensor:
    """What the largest of is a sample of softmax(logits / temperature): exponentials, and noise that divides them."""
    wide = logits.to(torch.float64)
    return wide.exp() / (-torch.rand_like(wide).log()) ** temperature
