"""Where a model runs and in which dtype, by name."""

import os

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


def device_of_process(device: str) -> torch.device:
    """The device of one process of a command whose processes share its work: "cuda" and "auto" are the GPU of its
    LOCAL_RANK, which torchrun and accelerate set. ValueError for cuda:N under these: all would be given the same GPU.
    """
    local_rank = os.environ.get("LOCAL_RANK")
    if local_rank is not None and device.startswith("cuda:"):
        raise ValueError(
            f"device is {device!r} under torchrun or accelerate, which give each process a GPU of its own; "
            f"expected auto, cpu or cuda"
        )
    resolved = resolve_device(device)
    if resolved.type == "cuda" and resolved.index is None:
        return torch.device("cuda", int(local_rank or 0) % torch.cuda.device_count())  # of those that it sees
    return resolved
