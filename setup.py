"""Builds `tad_ext._C`: the C++ operators everywhere, the CUDA kernels where nvcc and a CUDA build of torch are there.

`TAD_CUDA=0` leaves the CUDA kernels out, `TAD_CUDA=1` insists on them. What was decided is printed, and `tad doctor`
repeats it.
"""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from pathlib import Path

from setuptools import setup

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError as error:
    raise SystemExit(
        f"tad_ext builds against torch, which cannot be imported here ({error}). Install torch first, then "
        "`pip install .`; without a package registry: `pip install --no-build-isolation --no-deps .`"
    ) from error

HOST_SOURCES = [*Path("csrc/bindings").glob("*.cpp"), *Path("csrc/cpu").glob("*.cpp")]
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []  # at::parallel_for is serial code without it
CUDA_SOURCES = list(Path("csrc/cuda").glob("*.cu"))


def cuda_decision() -> tuple[bool, str]:
    """Whether to build the CUDA kernels, and why."""
    wish = os.environ.get("TAD_CUDA", "")
    if wish not in ("", "0", "1"):
        raise SystemExit(f"TAD_CUDA is {wish!r}, expected 0, 1 or unset")
    obstacles = []
    if not CUDA_SOURCES:
        obstacles.append("this version of tad_ext has no CUDA kernels yet")
    if shutil.which("nvcc") is None:
        obstacles.append("nvcc is not on the PATH")
    if torch.version.cuda is None:
        obstacles.append(f"torch {torch.__version__} is a build without CUDA")
    if wish == "0":
        return False, "TAD_CUDA=0"
    if obstacles and wish == "1":
        raise SystemExit(f"TAD_CUDA=1 asks for the CUDA kernels, but {' and '.join(obstacles)}")
    if obstacles:
        return False, " and ".join(obstacles)
    return True, f"nvcc found, torch {torch.__version__} with CUDA {torch.version.cuda}"


build_cuda, cuda_reason = cuda_decision()
assert not build_cuda  # no CUDA sources yet
# A warning, because pip shows what a build warns about and hides what it prints.
warnings.warn(f"tad_ext builds its C++ operators; CUDA kernels: not built ({cuda_reason})", stacklevel=1)

setup(
    ext_modules=[
        CppExtension(
            "tad_ext._C",
            sorted(str(source) for source in HOST_SOURCES),
            depends=sorted(str(path) for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inl")),
            define_macros=[("TAD_CUDA_REASON", f'"{cuda_reason}"')],
            extra_compile_args=[
                "-O3",
                *OPENMP,
                "-g0",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-Wall",
                "-Wno-unknown-pragmas",
            ],
            extra_link_args=OPENMP,
        )
    ],
    cmdclass={"build_ext": BuildExtension},
)
