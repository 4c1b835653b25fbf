"""Dropout on a CPU, for a quarter of PyTorch's random numbers."""

import torch
from torch import Tensor, nn

_LEAST, _VALUES = -(2**15), 2**16  # of 16 bits as a whole number: the first, and how many


class CPUDropout(nn.Dropout):
    """`nn.Dropout`, which on a CPU draws 16 random bits for an element in the place of 64.

    So p is rounded to a whole number of 65,536ths, 0.05 to 0.050003. The draws follow from `torch.manual_seed`, and are
    others than its.
    """

    def forward(self, states: Tensor) -> Tensor:
        """(...) -> the same shape and dtype."""
        dropped = round(self.p * _VALUES)
        on_cpu = states.device.type == "cpu" and not torch.compiler.is_compiling()
        if not (self.training and on_cpu and 0 < dropped < _VALUES):
            return super().forward(states)
        bits = torch.empty(-(-states.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = torch.ge(bits[: states.numel()].view(states.shape), _LEAST + dropped, out=torch.empty_like(states))
        return states * kept.div_(1 - dropped / _VALUES)
