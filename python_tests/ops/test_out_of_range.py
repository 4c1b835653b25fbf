"""What indices out of range do where nobody looks at them: CUDA kernels without TAD_EXT_DEBUG=1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from op_checks import CUDA_ON_HOST

HELPERS = Path(__file__).parent.parent / "helpers"
PROGRAM = """
import os, sys, torch, out_of_range
if "TAD_EXT_CUDA_ON_HOST" in os.environ:
    torch.ops.load_library(os.environ["TAD_EXT_CUDA_ON_HOST"])
out_of_range.main(sys.argv[1])
"""


def test_they_make_their_entry_nan_and_touch_nothing_else(device: str) -> None:
    if device == "cpu" and not CUDA_ON_HOST:
        pytest.skip("the CPU kernels' indices are always looked at")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HELPERS), *sys.path])}
    environment.pop("TAD_EXT_DEBUG", None)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, device], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stdout + result.stderr
