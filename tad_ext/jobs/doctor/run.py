"""`tad doctor`: what is installed, compiled and usable on this machine, and what is missing for what."""

import importlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
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
    "lazy_loader": "everything",
    "transformers": "models and tokenizers",
    "tokenizers": "models and tokenizers",
    "safetensors": "models and tokenizers",
    "huggingface_hub": "models by their hub ids",
    "jinja2": "chat templates",
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
    "lm_eval": "lm-eval",
}
SERVING = dict.fromkeys(("fastapi", "uvicorn", "openai"), "serve")
MIB = 2**20
STYLES = {"ok": "green", "missing": "yellow", "broken": "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line of the report. `state`: "ok", "missing" (something optional is not there) or "broken" (nothing
    works).
    """

    item: str
    value: str
    state: str = "ok"
    note: str = ""


def doctor(config: DoctorConfig) -> int:
    """Prints the report; returns the exit code, 1 if the core is broken: torch, transformers or tad_ext do not
    import.
    """
    sections = examine()
    console = Console(markup=False, soft_wrap=config.json)  # what is found may hold brackets
    if config.json:
        console.print_json(data={title: [vars(one) for one in found] for title, found in sections.items()})
    else:
        _print(console, sections)
    return int(any(one.state == "broken" for found in sections.values() for one in found))


def examine() -> dict[str, list[Finding]]:
    """The findings under their headings."""
    try:
        torch: Any = importlib.import_module("torch")
        gpus = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    except Exception:  # the core's findings say why
        torch, gpus = None, range(0)
    return {
        "versions": [
            Finding("python", platform.python_version(), note=sys.executable),
            _package("tad_ext", "missing", "not installed, used from its source folder"),
            *(_package(name, "broken", f"needed for {use}: pip install {name}") for name, use in REQUIRED.items()),
            *(
                _package(name, "missing", f"needed for {use}: pip install {name}")
                for name, use in (BUILD | SERVING).items()
            ),
        ],
        "core": [_imports(f"tad_ext.{layer}") for layer in ("ops", "models", "decoding", "data")],
        "kernels": _kernels([torch.cuda.get_device_capability(index) for index in gpus]),
        "launch plans": _launch_plans(torch.cuda.get_device_capability(0)) if gpus else [],
        "cpu": _cpu(torch),
        "gpu": [] if torch is None else _gpus(torch, gpus),
        "sandbox": _sandbox(),
    }


def _package(name: str, absent: str, note: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "not installed", absent, note)


def _imports(module: str) -> Finding:
    """Whether a layer of the package imports at all. Any error counts, and is shown: that is what a doctor is for."""
    try:
        importlib.import_module(module)
    except Exception as error:
        return Finding(module, "does not import", "broken", f"{type(error).__name__}: {error}")
    return Finding(module, "imports")


def _kernels(capabilities: Sequence[tuple[int, int]]) -> list[Finding]:
    try:
        from tad_ext.ops import backend_info

        info = backend_info()
    except Exception as error:
        return [Finding("compiled kernels", "unknown", "broken", f"{type(error).__name__}: {error}")]
    return kernel_findings(info, capabilities)


def kernel_findings(info: dict[str, Any], capabilities: Sequence[tuple[int, int]] = ()) -> list[Finding]:
    """The findings that `tad_ext.ops.backend_info()` stands for, on GPUs of these compute capabilities."""
    if info["compiled"]:
        cpu = Finding("C++ kernels", f"compiled, running as {info['cpu_capability']}")
    else:
        state = "missing" if info["cpu_capability"] == "reference" else "broken"
        cpu = Finding("C++ kernels", "not used", state, info.get("error") or "no reason recorded")
    if not info["cuda_built"]:
        why = info.get("cuda_reason") or "no reason recorded"
        note = f"{why}; on a GPU set TAD_EXT_REFERENCE=1: plain PyTorch does their work"
        return [cpu, Finding("CUDA kernels", "not compiled", "missing", note)]
    architectures = info["cuda_architectures"]
    lost = [f"{major}.{minor}" for major, minor in capabilities if not runs_on(architectures, (major, minor))]
    note = f"these do not run on a GPU of compute capability {', '.join(lost)}: install tad_ext again on this machine"
    state, note = ("missing", note) if lost else ("ok", "")
    return [cpu, Finding("CUDA kernels", f"compiled for {architectures}", state, note)]


def _launch_plans(capability: tuple[int, int]) -> list[Finding]:
    try:
        from tad_ext.ops.launch_plans import launch_plans

        return launch_plan_findings(launch_plans("cuda:0"), capability)
    except Exception as error:
        return [Finding("the loss's kernel", "unknown", "missing", f"{type(error).__name__}: {error}")]


def launch_plan_findings(plans: Sequence[Any], capability: tuple[int, int]) -> list[Finding]:
    """The findings that `tad_ext.ops.launch_plans` stands for, of the first GPU, with this compute capability."""
    if not plans:
        return []
    most = max(plan.cluster_blocks for plan in plans)  # the longest rows take the largest clusters that there are
    note = (
        "8 from compute capability 9.0 on; with fewer the loss is slower: the kernels were compiled for an older GPU, "
        "or this process has a share of one (MPS, MIG) without room for 8 blocks side by side"
    )
    state, note = ("missing", note) if most < 8 and capability >= (9, 0) else ("ok", "on the first GPU")
    return [
        Finding("blocks that share a row", f"up to {most}", state, note),
        *(Finding(plan.row, plan.work) for plan in plans),
    ]


def runs_on(architectures: str, capability: tuple[int, int]) -> bool:
    """Whether kernels compiled for `architectures`, such as "sm_80, sm_90a", run on a GPU of this compute capability.

    sm_XY is machine code for X.Y and later minors of X; with an `a` for X.Y alone. compute_XY is compiled by the driver
    for anything from X.Y on.
    """
    for kind, major, minor, suffix in re.findall(r"(sm|compute)_(\d+)(\d)([af]?)", architectures):
        target = (int(major), int(minor))
        compatible = capability[0] == target[0] or (kind == "compute" and not suffix)
        if capability == target or (capability > target and compatible and suffix != "a"):
            return True
    return False


def _cpu(torch: Any) -> list[Finding]:
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            processor = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    findings = [Finding("processor", processor), Finding("cores this process may use", str(cores))]
    if torch is not None:
        capability = torch.backends.cpu.get_cpu_capability()
        findings.append(Finding("instruction set", capability, note="as PyTorch uses it"))
        findings.append(Finding("threads", str(torch.get_num_threads()), note="OMP_NUM_THREADS sets them"))
    return findings


def _gpus(torch: Any, indices: Sequence[int]) -> list[Finding]:
    if not indices:
        driver = shutil.which("nvidia-smi") is not None
        if torch.version.cuda is None:
            why = "this PyTorch is built for the CPU only" + ("; install a CUDA build of it" if driver else "")
        else:
            why = "PyTorch sees none" + ("" if driver else "; no NVIDIA driver found")
        return [Finding("GPU", "none", "missing", f"{why}; everything runs on the CPU, large models slowly")]
    findings = [Finding("CUDA", str(torch.version.cuda), note="of this PyTorch")]
    for index in indices:
        gpu = torch.cuda.get_device_properties(index)
        memory = f"{gpu.total_memory // MIB:,} MiB"
        findings.append(Finding(f"GPU {index}", gpu.name, note=f"{memory}, compute capability {gpu.major}.{gpu.minor}"))
    return findings


def _sandbox() -> list[Finding]:
    try:
        from tad_ext.data.sandbox.run import protections

        return sandbox_findings(protections())
    except Exception as error:
        return [Finding("model-written programs", "not run", "missing", f"{type(error).__name__}: {error}")]


def sandbox_findings(protections: Sequence[Any]) -> list[Finding]:
    """The findings that `tad_ext.data.sandbox.run.protections()` stands for: what holds, and what does not."""
    holding = ", ".join(one.name for one in protections if not one.missing)
    missing = [one for one in protections if one.missing]
    why = "; ".join(f"{one.name} ({one.guards}): {one.missing}" for one in missing)
    refused = any(one.needed for one in missing)
    return [
        Finding("model-written programs", *(("not run", "missing") if refused else ("run", "ok"))),
        Finding("protected by", holding or "nothing", *(("missing", f"not by {why}") if missing else ())),
    ]


def _print(console: Console, sections: dict[str, list[Finding]]) -> None:
    for title, findings in sections.items():
        table = Table(
            title=title, title_justify="left", title_style="bold", show_header=False, box=None, padding=(0, 2, 0, 0)
        )
        for one in findings:
            table.add_row(Text(one.state, STYLES[one.state]), one.item, one.value, one.note)
        console.print(table)
        console.print()
    console.print(_verdict([one for found in sections.values() for one in found]), highlight=False)


def _verdict(findings: Sequence[Finding]) -> str:
    states = [one.state for one in findings]
    if "broken" in states:
        return "Something that tad_ext cannot do without is broken; the lines marked broken say what."
    if "missing" in states:
        return "tad_ext works. What is marked missing is optional; the note beside it says what it is for."
    return "tad_ext works, and nothing is missing."
