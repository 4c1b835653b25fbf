"""The kernels under compute-sanitizer: out-of-bounds accesses, races in shared memory, barriers, unwritten memory."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils.cpp_extension import CUDA_HOME

pytestmark = pytest.mark.gpu
HELPERS = Path(__file__).parent.parent / "helpers"


def sanitizer() -> str:
    folders = [os.environ["PATH"], *([] if CUDA_HOME is None else [str(Path(CUDA_HOME) / "bin")])]
    found = shutil.which("compute-sanitizer", path=os.pathsep.join(folders))
    if found is None:
        pytest.skip("compute-sanitizer is neither on the PATH nor beside nvcc")
    return found


@pytest.mark.parametrize(
    ("tool", "module"),
    [
        ("memcheck", "awkward_sizes"),
        ("memcheck", "out_of_range"),
        ("memcheck", "cluster_rows"),
        ("racecheck", "awkward_sizes"),
        ("racecheck", "cluster_rows"),
        ("synccheck", "awkward_sizes"),
        ("synccheck", "cluster_rows"),
        ("initcheck", "awkward_sizes"),
    ],
)
def test_finds_nothing(tool: str, module: str) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HELPERS), *sys.path]),
        # Every tensor gets memory of its own: what lies beyond it in the allocator's pool would look allocated.
        "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    }
    environment.pop("TAD_EXT_DEBUG", None)
    program = f"import {module}; {module}.main('cuda')"
    # It follows every bulk barrier of every block, and fails when it has not room for so many.
    room = ["--num-cuda-barriers", "1000000"] if tool == "synccheck" else []
    result = subprocess.run(
        [sanitizer(), "--tool", tool, *room, "--error-exitcode", "7", sys.executable, "-c", program],
        env=environment, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    output = result.stdout + result.stderr
    if "Device not supported" in output:
        pytest.skip("compute-sanitizer does not support this device")
    assert result.returncode == 0, output[-8000:]
