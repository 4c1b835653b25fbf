"""Seeing when code waits for the device: the calls that read a tensor's values on the host."""

from collections import Counter

from torch.overrides import TorchFunctionMode

WAITING = {"item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "unique", "equal", "allclose"}
WAITING |= {"__bool__", "__int__", "__float__", "__index__"}


class HostSyncs(TorchFunctionMode):
    """Counts calls of tensor methods that read values on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_function__(self, function, types, arguments=(), options=None):
        name = getattr(function, "__name__", "")
        if name in WAITING:
            self.calls[name] += 1
        return function(*arguments, **(options or {}))
