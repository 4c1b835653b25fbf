"""Builds `tad_ext._C`: the C++ operators everywhere, the CUDA kernels where nvcc and a CUDA build of torch are there.

`TAD_CUDA=0` leaves the CUDA kernels out, `TAD_CUDA=1` insists on them, TORCH_CUDA_ARCH_LIST chooses other GPUs than the
usual ones. What was decided is printed, and `tad doctor` repeats it.
"""

import os
import re
import sys
import warnings
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "tools"))
from cuda_toolkit import NVCC_FLAGS, TORCH_CUDA_ARCH_LIST, find_toolkit
from setuptools_version import check_setuptools

check_setuptools()
from setuptools import setup  # noqa: E402

try:
    import torch
except ImportError as error:
    raise SystemExit(
        f"tad_ext builds against torch, which cannot be imported here ({error}). Install torch first, then "
        "`pip install .`; without a package registry: `pip install --no-build-isolation --no-deps .`"
    ) from error

BINDINGS = sorted(Path("csrc/bindings").glob("*.cpp"))
CPU_SOURCES = sorted(Path("csrc/cpu").glob("*.cpp"))
INCLUDED = [*BINDINGS, *(path for path in Path("csrc").rglob("*") if path.suffix in (".h", ".inl", ".cuh"))]
OPENMP = ["-fopenmp"] if sys.platform == "linux" else []  # at::parallel_for is serial code without it
toolkit = find_toolkit()


def cuda_obstacle() -> str | None:
    """What stands in the way of building the CUDA kernels here."""
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    if toolkit is None:
        return "no nvcc on the PATH or in CUDA_HOME"
    if toolkit.version.split(".")[0] != torch.version.cuda.split(".")[0]:
        return f"nvcc is version {toolkit.version}, torch {torch.__version__} was built with CUDA {torch.version.cuda}"
    if failure := toolkit.failure():
        return f"nvcc {toolkit.version} cannot build here: {failure}"
    return None


def cuda_decision() -> tuple[bool, str]:
    """Whether to build the CUDA kernels, and why."""
    wish = os.environ.get("TAD_CUDA", "")
    if wish not in ("", "0", "1"):
        raise SystemExit(f"TAD_CUDA is {wish!r}, expected 0, 1 or unset")
    if wish == "0":
        return False, "TAD_CUDA=0"
    if obstacle := cuda_obstacle():
        if wish == "1":
            raise SystemExit(f"TAD_CUDA=1 asks for the CUDA kernels, but {obstacle}")
        return False, obstacle
    return True, f"nvcc {toolkit.version}, torch {torch.__version__} with CUDA {torch.version.cuda}"


def united(sources: list[Path], path: Path) -> Path:
    """One source that includes them all: torch's headers, which are most of the work, are read once."""
    path.parent.mkdir(exist_ok=True)
    text = "".join(f'#include "../{source.as_posix()}"\n' for source in sources)
    if not path.is_file() or path.read_text() != text:
        path.write_text(text)
    return path


build_cuda, cuda_reason = cuda_decision()
if build_cuda:  # torch reads both variables, the first when its extension builder is imported
    os.environ["CUDA_HOME"] = str(toolkit.home)
    os.environ["TORCH_CUDA_ARCH_LIST"] = os.environ.get("TORCH_CUDA_ARCH_LIST") or TORCH_CUDA_ARCH_LIST
from torch.utils import cpp_extension  # noqa: E402

architectures, cuda_sources = "", []
if build_cuda:
    cuda_sources = sorted(Path("csrc/cuda").glob("*.cu"))
    try:
        flags = cpp_extension._get_cuda_arch_flags()
    except ValueError as error:
        raise SystemExit(f"TORCH_CUDA_ARCH_LIST is {os.environ['TORCH_CUDA_ARCH_LIST']!r}: {error}") from error
    codes = re.findall(r"code=(sm_\w+|compute_\w+)", " ".join(flags))
    architectures = ", ".join(sorted(codes, key=lambda code: (code.startswith("compute"), code)))
# A warning, because pip shows what a build warns about and hides what it prints.
built = f"built for {architectures}" if build_cuda else "not built"
warnings.warn(f"tad_ext builds its C++ operators; CUDA kernels: {built} ({cuda_reason})", stacklevel=1)


def quoted(text: str) -> str:
    """The text as a C string literal."""
    return '"' + text.replace("\\", "/").replace('"', "'") + '"'


Extension = cpp_extension.CUDAExtension if build_cuda else cpp_extension.CppExtension
setup(
    ext_modules=[
        Extension(
            "tad_ext._C",
            list(map(str, [united(BINDINGS, Path("build/bindings.cpp")), *CPU_SOURCES, *cuda_sources])),
            depends=sorted(map(str, INCLUDED)),
            define_macros=[
                ("TAD_CUDA_REASON", quoted(cuda_reason)),
                ("TAD_CUDA_ARCHITECTURES", quoted(architectures)),
                *([("TAD_WITH_CUDA", None)] if build_cuda else []),
            ],
            extra_compile_args={
                "cxx": [
                    "-std=c++20",
                    "-O3",
                    *OPENMP,
                    "-g0",
                    "-fno-math-errno",
                    "-fno-trapping-math",
                    "-Wall",
                    "-Wno-unknown-pragmas",
                ],
                "nvcc": NVCC_FLAGS,
            },
            extra_link_args=OPENMP,
        )
    ],
    cmdclass={"build_ext": cpp_extension.BuildExtension},
)
