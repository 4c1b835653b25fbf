"""Which keys a query attends to: masks of booleans, True where it does, and at least once for every query.

They have four dimensions because transformers looks at the values of a two-dimensional one on the host. Keys behind a
sequence's length are padding; key 0 counts as real whatever the length, so that no softmax is empty.
"""

import torch
from torch import Tensor


def attention_mask(
    lengths: Tensor | None, blocks: Tensor | None, of_queries: Tensor | None, queries: int, length: int
) -> Tensor | None:
    """(B, 1, Q, L): the key is a real token, and of no later block than the query. None: all are.

    Args:
        lengths: (B,) int64 real tokens; None: L.
        blocks: (B, L) int64 of keys; None: all of one.
        of_queries: (B, Q) int64, theirs.
        queries, length: Q and L.
    """
    mask = None
    if lengths is not None:
        mask = _real(lengths, length)[:, None, None, :].expand(len(lengths), 1, queries, length)
    if blocks is not None and of_queries is not None:
        earlier = (blocks[:, None, :] <= of_queries[:, :, None])[:, None]
        mask = earlier if mask is None else mask & earlier
    return mask


def mask_of_twins(lengths: Tensor | None, blocks: Tensor) -> Tensor:
    """(B, 1, 2 L, 2 L) of [noisy ; clean], both in the same `blocks`, (B, L) int64.

    The key is of the query's block and on its side, or of an earlier block and clean (block diffusion, arXiv
    2503.09573). A real query has itself, and any other one the first token of either side.
    """
    length = blocks.shape[1]
    clean = torch.arange(2 * length, device=blocks.device) >= length
    key, query = (blocks.repeat(1, 2).unsqueeze(dim) for dim in (1, 2))
    mask = ((key == query) & (clean == clean[:, None])) | ((key < query) & clean)
    if lengths is not None:
        mask = mask & _real(lengths, length).repeat(1, 2)[:, None]
    return mask[:, None]


def mask_of_shadow(lengths: Tensor | None, shadow: Tensor, length: int) -> Tensor:
    """(B, 1, L + S, L + S) of [row ; masks], which stand for the row's columns `shadow`, (B, S) int64, -1 for padding.

    Both see the row, but a mask does not see the column that it stands for, and masks see all masks (WINO, arXiv
    2507.18578).
    """
    stands_for = torch.cat((shadow.new_full((len(shadow), length), -1), shadow), dim=1)
    key = torch.arange(length, device=shadow.device)
    of_row = key != stands_for[..., None]
    if lengths is not None:
        of_row = of_row & _real(lengths, length)[:, None]
    of_masks = (stands_for >= 0)[..., None] & (shadow >= 0)[:, None]
    return torch.cat((of_row, of_masks), dim=2)[:, None]


def added_to_scores(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """The same mask as numbers, 0 and the dtype's least, as transformers' eager attention takes it."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _real(lengths: Tensor, length: int) -> Tensor:
    """(B, L) bool."""
    return torch.arange(length, device=lengths.device) < lengths.clamp(min=1)[:, None]
