"""Where a model runs and in which dtype, by name."""

from __future__ import annotations

import torch


def resolve_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """A dtype by name; None for None and "auto": the checkpoint's own. ValueError for anything but floating point."""
    if dtype is None or dtype == "auto":
        return None
    resolved = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if resolved not in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        raise ValueError(f"dtype must be auto, float32, bfloat16, float16 or float64, got {dtype!r}")
    return resolved


def resolve_device(device: torch.device | str | None) -> torch.device:
    """A device by name; None and "auto": a GPU if there is one, else the CPU. ValueError if the machine lacks it."""
    if device is None or device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    count = {"cpu": 1, "cuda": torch.cuda.device_count()}.get(resolved.type, 0)
    if (resolved.index or 0) >= count:
        raise ValueError(f"device must be auto or a CPU or GPU of this machine, got {device!r} ({count} found)")
    return resolved
