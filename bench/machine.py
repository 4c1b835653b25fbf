"""Names the machine that numbers belong to: processor, GPU and driver, versions, revision.

`python -m bench.machine --result FILE` writes it as JSON. What a machine does not tell is null. It needs no tad_ext,
which bench.h200 installs afterwards; how the kernels work on that machine is in the results of what measures them.
"""

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from . import ROOT, command_line
from .results import write_json

_SMI_FIELDS = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.limit")


def describe_run(device: torch.device | str) -> dict[str, Any]:
    """The machine and the versions of one process that measures."""
    from tad_ext.ops import backend_info

    gpu = torch.device(device).type == "cuda"
    return {
        "processor": _processor(),
        "gpu": torch.cuda.get_device_name(device) if gpu else None,
        "threads": torch.get_num_threads(),
        "instruction_set": backend_info()["cpu_capability"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "launch_plans": launch_plans(device),
    }


def launch_plans(device: torch.device | str) -> list[str]:
    """How the loss's CUDA kernel works on the usual rows, in words, or why it does not; on a CPU nothing."""
    from tad_ext.ops.launch_plans import launch_plans

    try:
        return [str(plan) for plan in launch_plans(device)]
    except RuntimeError as error:
        return [str(error)]


def describe_machine() -> dict[str, Any]:
    """Everything a reader needs to judge the numbers; `gpu` is null where PyTorch sees none."""
    status = _output("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    nvcc = re.search(r"release ([\d.]+)", _output("nvcc", "--version") or "")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": _gpu() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "nvcc": nvcc and nvcc[1],
        "triton": _version("triton"),
        "transformers": _version("transformers"),
        "revision": _output("git", "-C", str(ROOT), "rev-parse", "HEAD"),
        "revision_is_clean": None if status is None else not status,
    }


def gpu_status() -> dict[str, str | None]:
    """Driver, clocks in MHz, temperature and power limit of the first GPU, as nvidia-smi words them."""
    line = _output("nvidia-smi", "--id=0", f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader")
    return dict.fromkeys(_SMI_FIELDS) | dict(zip(_SMI_FIELDS, re.split(r",\s*", line) if line else ()))


def _gpu() -> dict[str, Any]:
    found = torch.cuda.get_device_properties(0)
    return {
        "name": found.name,
        "compute_capability": f"{found.major}.{found.minor}",
        "memory_bytes": found.total_memory,
        "multiprocessors": found.multi_processor_count,
        "l2_bytes": getattr(found, "L2_cache_size", None),
        **gpu_status(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*: (.*)", info.read_text(), re.MULTILINE) if info.exists() else None
    return name[1] if name else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _output(*command: str) -> str | None:
    """What a command prints; None where it is missing, fails or hangs."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


if __name__ == "__main__":
    parser = command_line("bench.machine", __doc__)
    parser.add_argument("--result", type=Path, required=True, help="file to write")
    write_json(parser.parse_args().result, describe_machine())
