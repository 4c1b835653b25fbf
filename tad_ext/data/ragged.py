"""Token sequences of different lengths as one batch, padded on the right, with the entries that are wanted of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Ints = Sequence[int] | np.ndarray | Tensor


class Ragged(NamedTuple):
    """B sequences and N entries of them, int64, named as a model's arguments: ``model(**batch._asdict())``."""

    input_ids: Tensor  #: (B, L)
    lengths: Tensor | None  #: (B,) tokens of each sequence; None where none is padded
    positions: Tensor  #: (N,) flattened, `sequence * L + column`

    def to(self, device: torch.device | str) -> "Ragged":
        """The same on another device, which is not waited for."""
        lengths = None if self.lengths is None else to_device(self.lengths, device)
        return Ragged(to_device(self.input_ids, device), lengths, to_device(self.positions, device))


def ragged(sequences: Sequence[Ints], columns: Sequence[Ints], pad_token_id: int = 0) -> Ragged:
    """Pads sequences, of which there may be none, to the longest of them, with any id of the vocabulary.

    `columns` are the wanted ones of each sequence; entries stand in this order, sequence after sequence.
    """
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    width = int(lengths.max(initial=0))
    input_ids = np.full((len(sequences), width), pad_token_id, dtype=np.int64)
    positions = [np.empty(0, dtype=np.int64)]
    for number, (sequence, wanted) in enumerate(zip(sequences, columns, strict=True)):
        input_ids[number, : len(sequence)] = sequence
        positions.append(np.asarray(wanted, dtype=np.int64) + number * width)
    return Ragged(
        torch.from_numpy(input_ids),
        torch.from_numpy(lengths) if (lengths < width).any() else None,
        torch.from_numpy(np.concatenate(positions)),
    )


def to_device(numbers: Sequence[Any] | Tensor, device: torch.device | str) -> Tensor:
    """Numbers of the host, int64 unless they are a tensor, on a device that is not waited for."""
    tensor = numbers if isinstance(numbers, Tensor) else torch.as_tensor(numbers, dtype=torch.int64)
    if torch.device(device).type == "cuda":  # from memory that may be paged out, it would copy after the work before it
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
