"""Every operator, at sizes that fit no vector and no block, aligned in memory and not: for sanitizers.

On a GPU blocks have little shared memory, so that clusters of every size work on these rows.
"""

import os

import torch
from every_operator import every_operator
from torch import Tensor

VOCABULARIES = [1, 7, 515, 520, 4099]  # rows of 520 are whole groups, which come by bulk copies
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


def misaligned(tensor: Tensor) -> Tensor:
    """The same values, one element behind the beginning of their memory and ending with it."""
    memory = torch.cat([tensor.new_zeros(1), tensor.flatten()])
    return memory[1:].view(tensor.shape)


def main(device: str) -> None:
    os.environ["TAD_CUDA_SHARED_BYTES"] = str(18 << 10)  # read at the first launch
    for vocabulary in VOCABULARIES:
        for dtype in DTYPES:
            for case in every_operator(vocabulary, dtype):
                inputs = [tensor.to(device) for tensor in case.inputs(0)]
                case.run(*inputs)
                case.run(*[misaligned(tensor) for tensor in inputs])
    if device == "cuda":
        torch.cuda.synchronize()
    print("every operator was called", flush=True)
