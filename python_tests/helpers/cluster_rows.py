"""Every operator on rows of a real vocabulary, which clusters of blocks share: for sanitizers."""

import torch
from every_operator import every_operator

VOCABULARY = 126_464


def main(device: str) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        for case in every_operator(VOCABULARY, dtype):
            case.run(*[tensor.to(device) for tensor in case.inputs(0)])
    if device == "cuda":
        torch.cuda.synchronize()
    print("every operator was called", flush=True)
