"""Builds the library that runs the CUDA kernels under the operators' Python tests, on the host.

python tools/build_cuda_on_host.py          prints the library's path
TAD_EXT_CUDA_ON_HOST=<that path> python -m pytest python_tests/ops
"""

from pathlib import Path

from torch.utils.cpp_extension import load

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "cuda_on_host"


def build() -> Path:
    """Compiles what has changed; the path of the library."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    folder = ROOT / "csrc" / "cuda_on_host"
    load(
        name="cuda_on_host_ops",
        sources=sorted(str(path) for path in folder.glob("*.cpp") if not path.name.endswith("_test.cpp")),
        extra_cflags=["-O2", "-g0", "-fopenmp", "-std=c++20"],
        extra_ldflags=["-fopenmp"],
        build_directory=str(FOLDER),
        is_python_module=False,
    )
    return FOLDER / "cuda_on_host_ops.so"


if __name__ == "__main__":
    print(build())
