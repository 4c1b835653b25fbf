"""Tensors on different devices are refused by every operator, whichever kernel they would reach."""

import inspect
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from op_checks import random_entries
from operator_calls import NAMES, arguments_of, on_device, operator, tensors_of
from torch import Tensor
from torch._subclasses import FakeTensorMode

from tad_ext import ops

DENOMINATORS = ("near_count", "distant_count")
SEVERAL = [name for name in NAMES if name != "truncate_logits"]  # operators of more than one tensor


def assert_each_tensor_elsewhere_is_refused(name: str, device: str, elsewhere: str) -> None:
    arguments = arguments_of(name, device)
    first, second, *_ = tensors = [key for key, value in arguments.items() if isinstance(value, Tensor)]
    here = str(arguments[first].device)
    for tensor in tensors:
        if tensor in DENOMINATORS and elsewhere == "cpu":
            continue
        mixed = on_device(arguments, elsewhere, tensor)
        there = str(mixed[tensor].device)
        wrong = rf"^{second} is on {here}, expected {there} like {first}"
        with pytest.raises(
            ValueError, match=wrong if tensor == first else rf"^{tensor} is on {there}, expected {here}"
        ):
            operator(name)(**mixed)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_meta_tensor_among_others_is_refused(device: str, name: str) -> None:
    assert_each_tensor_elsewhere_is_refused(name, device, "meta")


@pytest.mark.parametrize("name", SEVERAL)
def test_a_tensor_on_another_device_is_refused_by_who_traces(name: str) -> None:
    with FakeTensorMode():
        assert_each_tensor_elsewhere_is_refused(name, "cuda:0", "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize("name", SEVERAL)
def test_a_tensor_on_the_cpu_is_refused_by_a_gpu(name: str) -> None:
    arguments = arguments_of(name, "cuda")
    for tensor, value in arguments.items():
        if isinstance(value, Tensor) and tensor not in DENOMINATORS:
            with pytest.raises(ValueError, match=r"is on (cpu|cuda:0), expected (cpu|cuda:0) like"):
                operator(name)(**on_device(arguments, "cpu", tensor))


@pytest.mark.parametrize("name", NAMES)
def test_meta_and_fake_tensors_have_the_results_of_others(device: str, name: str) -> None:
    arguments = arguments_of(name, device)
    expected = tensors_of(operator(name)(**arguments_of(name, device)))
    on_meta = tensors_of(operator(name)(**on_device(arguments, "meta")))
    with FakeTensorMode() as mode:
        fakes = {key: mode.from_tensor(v) if isinstance(v, Tensor) else v for key, v in arguments.items()}
        faked = tensors_of(operator(name)(**fakes))
    for real, meta, fake in zip(expected, on_meta, faked, strict=True):
        assert (meta.device.type, fake.device) == ("meta", real.device)
        assert meta.shape == fake.shape == real.shape
        assert meta.dtype == fake.dtype == real.dtype
        assert meta.stride() == fake.stride() == real.stride()


@pytest.mark.parametrize("name", ["tad_loss", "tad_loss_gradient", "linear_tad_loss"])
def test_denominators_may_stay_on_the_cpu(name: str) -> None:
    arguments = on_device(arguments_of(name, "cpu"), "meta")
    arguments["near_count"] = arguments["distant_count"] = torch.tensor(3.0)
    assert tensors_of(operator(name)(**arguments))[0].is_meta


FUNCTIONS = {
    "fused_tad_loss": "tad_loss",
    "fused_linear_tad_loss": "linear_tad_loss",
    "masked_log_softmax": "masked_log_softmax",
    "token_statistics": "token_statistics",
    "commit_reveal": "commit_reveal",
    "eligible_positions": "eligible_positions",
}


@pytest.mark.parametrize("module", [ops, ops.reference])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_refuse_a_meta_tensor_among_others(device: str, name: str, module: ModuleType) -> None:
    function = getattr(module, name)
    taken = inspect.signature(function).parameters
    arguments = {key: value for key, value in arguments_of(FUNCTIONS[name], device).items() if key in taken}
    for tensor, value in arguments.items():
        if isinstance(value, Tensor):
            with pytest.raises(ValueError, match=r" is on (meta|cpu|cuda:0), expected (meta|cpu|cuda:0) like "):
                function(**on_device(arguments, "meta", tensor))


@pytest.mark.parametrize("function", [ops.fused_linear_tad_loss, ops.reference.fused_linear_tad_loss])
def test_a_head_without_memory_is_refused(device: str, function: Callable) -> None:
    student, teacher, labels, steps = random_entries(6, 9, torch.float32, device)
    head = torch.nn.Linear(9, 9, bias=False, device="meta")
    with pytest.raises(ValueError, match=rf"lm_head_weight is on meta, expected {device}.* like student_hidden"):
        function(student, teacher, head, labels, steps, delta=2)


@pytest.mark.parametrize("recompute_gradient", [False, True])
def test_the_losses_of_meta_tensors_have_gradients(recompute_gradient: bool) -> None:
    student, teacher, head = (torch.empty(4, 4, device="meta", requires_grad=True) for _ in range(3))
    entries = torch.empty(2, 4, dtype=torch.int64, device="meta")
    options = {"delta": 2, "recompute_gradient": recompute_gradient}
    ops.fused_tad_loss(student, teacher, *entries, **options).loss.backward()
    ops.fused_linear_tad_loss(student, teacher, head, *entries, delta=2).loss.backward()
    assert student.grad.is_meta
    assert head.grad.is_meta
    assert teacher.grad is None


@pytest.mark.parametrize("tensor", ["student_logits", "teacher_logits"])
@pytest.mark.parametrize("layout", ["sparse", "quantised", "nested"])
@pytest.mark.filterwarnings("ignore")
def test_other_kinds_of_tensors_are_refused(tensor: str, layout: str) -> None:
    arguments = arguments_of("tad_loss", "cpu")
    arguments[tensor] = {
        "sparse": lambda x: x.to_sparse(),
        "quantised": lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.quint8),
        "nested": lambda x: torch.nested.nested_tensor([x[:3], x[3:]]),
    }[layout](arguments[tensor])
    with pytest.raises(NotImplementedError, match="tad_ext::tad_loss"):
        operator("tad_loss")(**arguments)
