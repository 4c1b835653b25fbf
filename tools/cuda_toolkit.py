"""nvcc as the build (setup.py) and the resource check (cuda_resources.py) use it: where it is, how it is called, and
what its names mean.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

# What a wheel holds unless TORCH_CUDA_ARCH_LIST says otherwise: machine code for A100-class (sm_80, which sm_86 and
# sm_89 run too) and Hopper GPUs, and PTX of 9.0, which knows clusters, for every GPU after them.
TORCH_CUDA_ARCH_LIST = "8.0 9.0+PTX"
CHECKED_ARCHITECTURES = ("sm_80", "sm_90")
LATER_ARCHITECTURES = ("sm_100", "sm_120")  # for which PTX of the last one must assemble

# The first five are what torch.utils.cpp_extension gives to every extension's CUDA files. They stand here as well, so
# that the check compiles what the build compiles.
NVCC_FLAGS = [
    "-D__CUDA_NO_HALF_OPERATORS__",
    "-D__CUDA_NO_HALF_CONVERSIONS__",
    "-D__CUDA_NO_BFLOAT16_CONVERSIONS__",
    "-D__CUDA_NO_HALF2_OPERATORS__",
    "--expt-relaxed-constexpr",
    "-std=c++20",
    "-O3",
    "-lineinfo",  # source lines in ncu and compute-sanitizer; the machine code stays the same
]
# In CI only: another version of nvcc or of the host compiler may warn about something new.
WARNINGS_AS_ERRORS = ["--Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror"]

PROBE = (
    "#include <cuda_bf16.h>\n__global__ void probe(float* x) { *x = 1; }\nvoid run(float* x) { probe<<<1, 1>>>(x); }\n"
)


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit: its nvcc, the folder it lies in, and nvcc's version such as 13.0.88."""

    nvcc: Path
    home: Path
    version: str

    def failure(self) -> str | None:
        """What nvcc says when it cannot build a small shared library: no headers, no host compiler it accepts."""
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe.cu"
            source.write_text(PROBE)
            flags = ["-shared", "-cudart", "shared", "-Xcompiler", "-fPIC", "-o", "probe.so"]
            result = subprocess.run([self.nvcc, *flags, source.name], capture_output=True, text=True, cwd=folder)
        if result.returncode == 0:
            return None
        lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
        return next((line for line in lines if "error" in line), (lines or ["it says nothing"])[-1])


def find_toolkit() -> Toolkit | None:
    """The first toolkit that has an nvcc: that of CUDA_HOME or CUDA_PATH, of the PATH, the usual folder's."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    candidates = [Path(home, "bin", "nvcc") for home in homes if home]
    candidates += [Path(shutil.which("nvcc") or ""), Path("/usr/local/cuda/bin/nvcc")]
    nvcc = next((path for path in candidates if path.is_file()), None)
    if nvcc is None:
        return None
    # nvcc itself knows its folder: what lies on the PATH may be a script elsewhere that calls it.
    top = re.search(r"^#\$ TOP=(.+)$", _output(nvcc, "--dryrun", "-c", "none.cu"), re.MULTILINE)
    version = re.search(r"V(\d+\.\d+\.\d+)", _output(nvcc, "--version"))
    home = Path(top[1]) if top else nvcc.parent.parent
    return Toolkit(nvcc, home.resolve(), version[1] if version else "unknown")


def find_nvdisasm(toolkit: Toolkit) -> Path | None:
    """The toolkit's, that of the PATH, or that of the package nvidia-cuda-nvdisasm."""
    packages = importlib.util.find_spec("nvidia")
    folders = (packages.submodule_search_locations if packages else None) or []
    candidates = [toolkit.home / "bin" / "nvdisasm", Path(shutil.which("nvdisasm") or "")]
    candidates += [path for folder in folders for path in Path(folder).glob("*/bin/nvdisasm")]
    return next((path for path in candidates if path.is_file()), None)


def demangle(report: str) -> str:
    """The report with readable names, without parameters (c++filt comes with every host compiler nvcc accepts)."""
    return subprocess.run(["c++filt", "-p"], input=report, capture_output=True, text=True, check=True).stdout


def short_name(demangled: str) -> str:
    """`tad::(anonymous namespace)::f<__nv_bfloat16, 4>` -> `f<bf16, 4>`: what tells instances apart."""
    name = re.sub(r"(\w+|\(anonymous namespace\))::", "", demangled)
    return name.replace("__nv_bfloat16", "bf16").replace("__half", "fp16")


def _output(nvcc: Path, *arguments: str) -> str:
    result = subprocess.run([nvcc, *arguments], capture_output=True, text=True)
    return result.stdout + result.stderr
