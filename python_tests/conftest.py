"""Settings for every test, and the devices that operators are tested on.

One thread (faster than two on a busy small machine), the same random numbers in every run, and hypothesis without
deadlines.

A test that takes `device` runs on the CPU and, marked `gpu`, on a GPU. With TAD_EXT_CUDA_ON_HOST=<library> the CPU runs
the CUDA kernels: the library holds their own source, compiled for the host, and puts it in place of the CPU kernels.
"""

import os

import pytest
import torch
from hypothesis import settings
from op_checks import CUDA_ON_HOST

from tad_ext.ops import backend_info

torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start
real_fsync = os.fsync  # for test_files.py
os.fsync = lambda descriptor: None  # thousands of times: what tests write need not survive the machine
settings.register_profile("tad", deadline=None, max_examples=30, derandomize=True)
settings.load_profile("tad")

if CUDA_ON_HOST:
    torch.ops.load_library(os.environ["TAD_EXT_CUDA_ON_HOST"])
    os.environ["TAD_EXT_DEBUG"] = "1"  # indices out of range are errors, as on the CPU


# For the whole session, because hypothesis refuses fixtures that are made anew for each test but not for each example.
@pytest.fixture(scope="session", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Where the operators' tensors live."""
    return request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """compute-sanitizer's tests first: each takes long, and a parallel run would end with waiting for them."""
    items.sort(key=lambda item: item.path.stem != "test_compute_sanitizer")


def pytest_runtest_setup(item: pytest.Item) -> None:
    # The same numbers whatever ran before. Where there is no GPU, torch.manual_seed keeps the stack of every call.
    seed = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed
    seed(0)
    if item.get_closest_marker("gpu"):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU")
        info = backend_info()
        if not info["cuda_built"]:
            pytest.skip(f"tad_ext was built without CUDA kernels: {info['cuda_reason']}")
    if item.get_closest_marker("cpu_backend") and CUDA_ON_HOST:
        pytest.skip("about the CPU kernels, which TAD_EXT_CUDA_ON_HOST replaces")
