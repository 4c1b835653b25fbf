"""Philox4x32-10 (Salmon et al., SC 2011) in PyTorch: the noise of token sampling, the bits of csrc/common/philox.h."""

from collections.abc import Sequence

import torch
from torch import Tensor

_MASK32 = 0xFFFFFFFF


def pack_offsets(step: Tensor | int, position: Tensor) -> Tensor:
    """The `offsets` argument of `token_statistics`: int64, the decoding step above, the position in the low 32 bits."""
    if isinstance(step, Tensor):
        step = step.to(position.device, torch.int64)
    return position.to(torch.int64) | (step << 32)


def gumbel_noise(seeds: Tensor, offsets: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise, (..., vocabulary) float64, a pure function of (seed, offset, vocabulary index).

    Word `i % 4` of Philox block `i // 4` gives index i a uniform u = (w // 256 + 1/2) / 2**24 in (0, 1); the noise is
    -log(-log u), at most 17.33.
    """
    uniform = _uniform(seeds, offsets, torch.arange((vocabulary + 3) // 4, device=seeds.device), stream=0)
    return -(-uniform.log()).log().flatten(-2)[..., :vocabulary]


def uniform_noise(seeds: Tensor, offsets: Tensor) -> Tensor:
    """Uniform numbers in (0, 1), float64, a pure function of (seed, offset), independent of `gumbel_noise`."""
    return _uniform(seeds, offsets, torch.zeros(1, dtype=torch.int64, device=seeds.device), stream=1)[..., 0, 0]


def _uniform(seeds: Tensor, offsets: Tensor, blocks: Tensor, stream: int) -> Tensor:
    """(..., blocks, 4) float64 in (0, 1)."""
    seeds, offsets = torch.broadcast_tensors(seeds.to(torch.int64), offsets.to(torch.int64))
    (low, high), key = ((x[..., None] & _MASK32, (x[..., None] >> 32) & _MASK32) for x in (offsets, seeds))
    words = _philox((blocks, low, high, torch.full_like(blocks, stream)), key)
    return ((words >> 8).to(torch.float64) + 0.5) * 2.0**-24


def _philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> Tensor:
    """Ten rounds over uint32 words held in int64 tensors; the four output words are the last dimension."""
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + 0x9E3779B9) & _MASK32
        k1 = (k1 + 0xBB67AE85) & _MASK32
    return torch.stack([c0, c1, c2, c3], dim=-1)


def _multiply(a: int, b: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of a * b; in 16-bit halves, because the product does not fit a signed 64-bit integer."""
    low_part = a * (b & 0xFFFF)
    high_part = a * (b >> 16)
    return (high_part + (low_part >> 16)) >> 16, (low_part + ((high_part & 0xFFFF) << 16)) & _MASK32
