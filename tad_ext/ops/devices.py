"""Which tensors of a call may be on which device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Denominators may stay on the CPU.
_ALSO_ON_CPU = ("near_count", "distant_count")


def check_devices(arguments: Mapping[str, Any]) -> None:
    """All tensors among a function's arguments are on the first one's device, or else a ValueError.

    Where one is a meta tensor PyTorch takes the whole call, or a part of it, for one without numbers: what comes back
    would be memory that nobody has written.
    """
    devices = {name: value.device for name, value in arguments.items() if isinstance(value, Tensor)}
    first = next(iter(devices))
    for name, device in devices.items():
        if device != devices[first] and not (name in _ALSO_ON_CPU and device.type == "cpu"):
            raise ValueError(f"{name} is on {device}, expected {devices[first]} like {first}")
