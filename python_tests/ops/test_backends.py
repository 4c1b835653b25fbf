"""The reference stands in for the compiled operators: same arguments, same errors, no compiled module needed."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import wrong_calls
from torch._subclasses.fake_tensor import FakeTensorMode

from tad_ext import ops
from tad_ext.ops import backend_info, reference

OPERATORS = [
    name
    for name in ops.__all__
    if inspect.isfunction(getattr(reference, name, None)) and getattr(reference, name) is not getattr(ops, name)
]
WRONG_CALLS = [(name, number) for name, cases in wrong_calls.CASES.items() for number in range(len(cases))]

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


@pytest.mark.parametrize("name", OPERATORS)
def test_same_arguments_and_defaults(name: str) -> None:
    assert inspect.signature(getattr(reference, name)) == inspect.signature(getattr(ops, name))


def test_the_reference_needs_no_compiled_module() -> None:
    result = subprocess.run([sys.executable, "-c", WITHOUT_THE_MODULE], capture_output=True, text=True, timeout=300)
    assert result.stdout.split() == ["True"], result.stderr


@pytest.fixture(scope="module")
def raised_by_the_reference() -> dict[str, list[list[str]]]:
    """What wrong calls raise where TAD_EXT_REFERENCE is set, by operator."""
    environment = {**os.environ, "TAD_EXT_REFERENCE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(Path(wrong_calls.__file__))]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(("name", "number"), WRONG_CALLS)
def test_a_wrong_call_raises_the_same_error(name: str, number: int, raised_by_the_reference: dict) -> None:
    argument = wrong_calls.CASES[name][number][0]
    (error, text), (expected, compiled) = raised_by_the_reference[name][number], wrong_calls.outcome(name, number)
    assert error == expected in ("ValueError", "TypeError")
    assert argument in text.split("is ")[0].split("has ")[0], text
    assert argument in compiled.split("is ")[0].split("has ")[0], compiled


def test_every_operator_has_wrong_calls_that_are_right_but_for_one_argument(raised_by_the_reference: dict) -> None:
    assert sorted(OPERATORS) == sorted(wrong_calls.CASES)
    for name, cases in wrong_calls.CASES.items():
        assert raised_by_the_reference[name][-1] == wrong_calls.outcome(name, len(cases)) == ["", ""]


@pytest.mark.skipif(backend_info()["cuda_built"], reason="tad_ext was built with CUDA kernels")
def test_without_cuda_kernels_a_cuda_tensor_gets_a_clear_answer() -> None:
    """A fake tensor says that it is on a GPU; redispatch skips what fake tensors do by themselves."""
    keys = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    with FakeTensorMode():
        logits = torch.empty(2, 4, device="cuda")
        with pytest.raises(NotImplementedError, match="TAD_EXT_REFERENCE=1") as error:
            torch.ops.tad_ext.masked_log_softmax.default.redispatch(keys, logits, None, 1.0, torch.float32)
    assert backend_info()["cuda_reason"] in str(error.value)
