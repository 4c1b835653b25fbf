"""`tad doctor`: what is installed, compiled and usable on this machine, and what is missing for what."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tad_ext.jobs.doctor.config import DoctorConfig

# Distribution name -> what cannot be done without it.
REQUIRED = {
    "torch": "everything",
    "numpy": "everything",
    "transformers": "models and tokenizers",
    "tokenizers": "models and tokenizers",
    "safetensors": "models and tokenizers",
    "peft": "distill, merge and adapters",
    "accelerate": "distill",
    "pyarrow": "collect and distill (trajectory files)",
    "PyYAML": "the tad command",
    "tqdm": "progress bars of every command",
    "rich": "tables of every command",
    "matplotlib": "evaluate and demo (curves)",
}
BUILD = {
    "pybind11": "building the compiled kernels without pip's isolation",
    "ninja": "building the compiled kernels without pip's isolation",
    "pytest": "the tests",
    "pytest-benchmark": "the benchmarks",
}
MIB = 2**20


@dataclass(frozen=True)
class Finding:
    """One line of the report. `state`: "ok", "missing" (something optional is not there) or "broken" (nothing
    works).
    """

    item: str
    value: str
    state: str = "ok"
    note: str = ""


def doctor(config: DoctorConfig | None = None) -> int:
    """Prints the report; returns the exit code, 1 if the core is broken: torch, transformers or tad_ext do not
    import.
    """
    sections = examine()
    if config is not None and config.json:
        Console(soft_wrap=True).print_json(
            data={title: [vars(one) for one in found] for title, found in sections.items()}
        )
    else:
        _print(sections)
    return 1 if any(one.state == "broken" for found in sections.values() for one in found) else 0


def examine() -> dict[str, list[Finding]]:
    """The findings under their headings."""
    return {
        "versions": [
            Finding("python", platform.python_version(), note=sys.executable),
            _package("tad_ext", "", "missing", note="not installed, used from its source folder"),
            *(_package(name, use, "broken") for name, use in REQUIRED.items()),
            *(_package(name, use, "missing") for name, use in BUILD.items()),
        ],
        "core": [
            _imports("tad_ext.ops"),
            _imports("tad_ext.models"),
            _imports("tad_ext.decoding"),
            _imports("tad_ext.data"),
        ],
        "kernels": _kernels(),
        "cpu": _cpu(),
        "gpu": _gpus(),
    }


def _package(name: str, use: str, absent: str, *, note: str = "") -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", absent, note or f"needed for {use}: pip install {name}")


def _imports(module: str) -> Finding:
    """Whether a layer of the package imports at all. Any error counts, and is shown: that is what a doctor is for."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return Finding(module, "does not import", "broken", f"{type(error).__name__}: {error}")
    return Finding(module, "imports")


def _kernels() -> list[Finding]:
    try:
        from tad_ext.ops import backend_info

        info = backend_info()
    except Exception as error:
        return [Finding("compiled kernels", "unknown", "broken", f"{type(error).__name__}: {error}")]
    return kernel_findings(info, _capabilities())


def kernel_findings(info: dict[str, Any], capabilities: Sequence[tuple[int, int]] = ()) -> list[Finding]:
    """The findings that `tad_ext.ops.backend_info()` stands for, on GPUs of these compute capabilities."""
    if info["compiled"]:
        cpu = Finding("C++ kernels", f"compiled, running as {info['cpu_capability']}")
    else:
        why = info.get("error") or "no reason recorded"
        reference = info["cpu_capability"] == "reference"
        cpu = Finding("C++ kernels", "not used", "missing" if reference else "broken", why)
    if info["cuda_built"]:
        return [cpu, _cuda_kernels(info["cuda_architectures"], capabilities)]
    why = info.get("cuda_reason") or "no reason recorded"
    note = f"{why}; on a GPU set TAD_EXT_REFERENCE=1: plain PyTorch does their work"
    return [cpu, Finding("CUDA kernels", "not compiled", "missing", note)]


def _cuda_kernels(architectures: str, capabilities: Sequence[tuple[int, int]]) -> Finding:
    value = f"compiled for {architectures}"
    lost = [f"{major}.{minor}" for major, minor in capabilities if not runs_on(architectures, (major, minor))]
    if not lost:
        return Finding("CUDA kernels", value)
    note = f"these do not run on a GPU of compute capability {', '.join(lost)}: install tad_ext again on this machine"
    return Finding("CUDA kernels", value, "missing", note)


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether kernels compiled for `architectures`, such as "sm_80, sm_90a", run on a GPU of this compute capability.

    sm_XY is machine code for X.Y and later minors of X; with an `a` for X.Y alone. compute_XY is compiled by the driver
    for anything from X.Y on.
    """
    for kind, major, minor, suffix in re.findall(r"(sm|compute)_(\d+)(\d)([af]?)", architectures):
        target = (int(major), int(minor))
        if suffix == "a":
            fits = capability == target
        elif kind == "sm" or suffix == "f":
            fits = capability[0] == target[0] and capability >= target
        else:
            fits = capability >= target
        if fits:
            return True
    return False


def _capabilities() -> list[tuple[int, int]]:
    """The compute capability of each GPU here."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]


def _cpu() -> list[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings = [Finding("processor", _processor_name()), Finding("cores this process may use", str(cores))]
    try:
        import torch
    except Exception:
        return findings
    return [
        *findings,
        Finding("instruction set", torch.backends.cpu.get_cpu_capability(), note="as PyTorch uses it"),
        Finding("threads", str(torch.get_num_threads()), note="OMP_NUM_THREADS sets them"),
    ]


def _gpus() -> list[Finding]:
    try:
        import torch
    except Exception:
        return []
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") is not None
        if torch.version.cuda is None:
            why = "this PyTorch is built for the CPU only" + ("; install a CUDA build of it" if driver else "")
        else:
            why = "PyTorch sees none" + ("" if driver else "; no NVIDIA driver found")
        return [Finding("GPU", "none", "missing", f"{why}; everything runs on the CPU, large models slowly")]
    findings = [Finding("CUDA", str(torch.version.cuda), note="of this PyTorch")]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        memory = f"{gpu.total_memory // MIB:,} MiB"
        findings.append(Finding(f"GPU {index}", gpu.name, note=f"{memory}, compute capability {gpu.major}.{gpu.minor}"))
    return findings


def _processor_name() -> str:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _print(sections: dict[str, list[Finding]]) -> None:
    console = Console(markup=False)  # what is found may hold brackets
    for title, findings in sections.items():
        table = Table(
            title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
        )
        for one in findings:
            style = {"ok": "green", "missing": "yellow", "broken": "bold red"}[one.state]
            table.add_row(Text(one.state, style), one.item, one.value, one.note)
        console.print(table)
        console.print()
    console.print(_verdict([one for found in sections.values() for one in found]), highlight=False)


def _verdict(findings: Iterable[Finding]) -> str:
    states = [one.state for one in findings]
    if "broken" in states:
        return "Something that tad_ext cannot do without is broken; the lines marked broken say what."
    if "missing" in states:
        return "tad_ext works. What is marked missing is optional; the note beside it says what it is for."
    return "tad_ext works, and nothing is missing."
