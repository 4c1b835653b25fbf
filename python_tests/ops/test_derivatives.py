"""Every way to differentiate an operator gives the right derivative or an error: none is lost in silence."""

from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as forward
from op_checks import random_entries
from operator_calls import NAMES, arguments_of, operator
from torch import Tensor

from tad_ext.ops import fused_linear_tad_loss, fused_tad_loss, masked_log_softmax, reference, token_statistics

LOSSES = [fused_tad_loss, reference.fused_tad_loss]


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
@pytest.mark.parametrize("name", NAMES)
def test_a_tangent_of_any_argument_is_an_error(device: str, name: str, mode: Callable) -> None:
    arguments = arguments_of(name, device)
    for key, value in arguments.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        with forward.dual_level(), mode():
            dual = forward.make_dual(value.clone(), torch.ones_like(value))
            with pytest.raises(NotImplementedError, match=rf"(?i)forward.* tad_ext::{name}\b"):
                operator(name)(**{**arguments, key: dual})


def functions_of_logits(device: str) -> dict[str, Callable[[Tensor], Tensor]]:
    student, teacher, labels, steps = random_entries(6, 9, torch.float32, device)
    return {
        "loss": lambda x: fused_tad_loss(x, teacher, labels, steps, delta=2).loss,
        "loss of hidden states": lambda x: fused_linear_tad_loss(x, teacher, student, labels % 6, steps, delta=2).loss,
        "loss of a head": lambda x: fused_linear_tad_loss(student, teacher, x, labels % 6, steps, delta=2).loss,
        "log_softmax": lambda x: masked_log_softmax(x, temperature=2.0).sum(),
        "confidence": lambda x: token_statistics(x).confidence.sum(),
    }  # fmt: skip


FUNCTIONS = ["loss", "loss of hidden states", "loss of a head", "log_softmax", "confidence"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forward_mode_is_refused(device: str, name: str) -> None:
    function = functions_of_logits(device)[name]
    x = random_entries(6, 9, torch.float32, device)[0] / 3
    differentiate = {
        "jvp": lambda: torch.func.jvp(function, (x,), (x,)),
        "jacfwd": lambda: torch.func.jacfwd(function)(x),
        "linearize": lambda: torch.func.linearize(function, x),
        "jvp of vmap": lambda: torch.func.jvp(lambda y: torch.vmap(function)(y[None]), (x,), (x,)),
    }
    for refused in differentiate.values():
        with pytest.raises(NotImplementedError, match=r"forward-mode derivative of tad_ext::\w+ is not implemented"):
            refused()


@pytest.mark.parametrize("name", FUNCTIONS[:-1])
def test_reverse_mode_transforms_are_refused(device: str, name: str) -> None:
    function = functions_of_logits(device)[name]
    x = random_entries(6, 9, torch.float32, device)[0]
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.hessian):
        with pytest.raises(RuntimeError, match=r"functorch transforms|forward-mode derivative"):
            transform(function)(x)


@pytest.mark.parametrize("function", LOSSES)
def test_teacher_weights_and_denominators_are_constants(device: str, function: Callable) -> None:
    student, teacher, labels, steps = random_entries(6, 9, torch.float32, device)
    constants = (teacher, torch.ones(6, device=device), torch.tensor(2.0, device=device))

    def loss(teacher: Tensor, row_weight: Tensor, count: Tensor) -> Tensor:
        options = {"row_weight": row_weight, "near_count": count, "distant_count": count}
        return function(student, teacher, labels, steps, delta=2, **options).loss

    assert not loss(*[constant.clone().requires_grad_() for constant in constants]).requires_grad
    _, tangent = torch.func.jvp(loss, constants, constants)
    assert tangent == 0
    for gradient in torch.func.grad(loss, argnums=(0, 1, 2))(*constants):
        assert (gradient == 0).all()


def test_statistics_are_constants(device: str) -> None:
    logits = random_entries(6, 9, torch.float32, device)[0].requires_grad_()
    assert not token_statistics(logits, query_tokens=torch.tensor([1], device=device)).query_logits.requires_grad


def test_what_requires_a_gradient_cannot_be_scaled_in_place(device: str) -> None:
    gradient = torch.ones(3, 4, device=device, requires_grad=True) * 1
    two = torch.tensor(2.0, device=device)
    with pytest.raises(NotImplementedError, match="derivative of tad_ext::scale_gradient is not implemented"):
        torch.ops.tad_ext.scale_gradient(gradient, two)
    with torch.no_grad():
        torch.ops.tad_ext.scale_gradient(gradient, two)
    assert (gradient == 2).all()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_vmap_is_one_call_after_the_other(device: str, name: str) -> None:
    """Values, and gradients that flow through it."""
    function = functions_of_logits(device)[name]
    x = random_entries(6, 9, torch.float32, device)[0]
    results = []
    for together in (True, False):
        batch = torch.stack([x, x / 2, -x]).requires_grad_()
        result = torch.vmap(function)(batch) if together else torch.stack([function(each) for each in batch])
        if result.requires_grad:
            (result * torch.tensor([1.0, 2.0, 3.0], device=device)).sum().backward()
        results.append((result, batch.grad))
    (mapped, mapped_grad), (looped, looped_grad) = results
    assert torch.equal(mapped, looped)
    if name == "confidence":
        assert mapped_grad is None
    else:
        torch.testing.assert_close(mapped_grad, looped_grad, rtol=1e-6, atol=1e-7)
        assert looped_grad.any()


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap_of_a_loss_keeps_the_gradient_of_a_head_outside(device: str) -> None:
    student, teacher, labels, steps = random_entries(6, 9, torch.float32, device)
    heads = [random_entries(9, 9, torch.float32, device, seed=1)[0].requires_grad_() for _ in range(2)]
    batch = torch.stack([student, student / 2])
    losses = [
        lambda x, head=head: fused_linear_tad_loss(x, teacher, head, labels, steps, delta=2).loss for head in heads
    ]
    torch.vmap(losses[0])(batch).sum().backward()
    torch.stack([losses[1](each) for each in batch]).sum().backward()
    torch.testing.assert_close(heads[0].grad, heads[1].grad)
    assert heads[1].grad.any()


@pytest.mark.parametrize("name", ["scale_gradient", "commit_reveal", "select_reveal", "eligible_positions"])
def test_what_writes_refuses_vmap(device: str, name: str) -> None:
    arguments = arguments_of(name, device)
    for key, value in arguments.items():
        if isinstance(value, Tensor):
            with pytest.raises(RuntimeError, match="tad_ext::" + name):
                torch.vmap(lambda x, key=key: operator(name)(**{**arguments, key: x}))(torch.stack([value, value]))
