"""The reference stands in for the compiled operators: same arguments, and there without the compiled module."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tad_ext.ops import backend, backend_info, reference

WITHOUT_THE_MODULE = """
import sys
sys.modules["tad_ext._C"] = None
import torch, tad_ext
assert tad_ext.reference.masked_log_softmax(torch.zeros(2, 4)).shape == (2, 4)
assert not tad_ext.backend_info()["compiled"]
try:
    tad_ext.masked_log_softmax(torch.zeros(2, 4))
except ImportError as error:
    print("pip install" in str(error) and "TAD_EXT_REFERENCE=1" in str(error))
"""


@pytest.mark.parametrize("name", backend.__all__)
def test_same_arguments_and_defaults(name: str) -> None:
    assert inspect.signature(getattr(backend, name)) == inspect.signature(getattr(reference, name))


def test_the_reference_needs_no_compiled_module() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_THE_MODULE], capture_output=True, text=True, timeout=300)
    assert result.stdout.split() == ["True"], result.stderr


@pytest.mark.skipif(backend_info()["cuda_built"], reason="tad_ext was built with CUDA kernels")
def test_without_cuda_kernels_a_cuda_tensor_gets_a_clear_answer() -> None:
    """A fake tensor says that it is on a GPU; redispatch skips what fake tensors do by themselves."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    with FakeTensorMode():
        logits = torch.empty(2, 4, device="cuda")
        with pytest.raises(NotImplementedError, match="TAD_EXT_REFERENCE=1") as error:
            torch.ops.tad_ext.masked_log_softmax.default.redispatch(keys, logits, None, 1.0, torch.float32)
    assert backend_info()["cuda_reason"] in str(error.value)
