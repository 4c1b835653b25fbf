"""Every instruction set of this processor, half precision exhaustively, and a forked child, each in its own process."""

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.cpu_backend, pytest.mark.slow]

NUMERICS = """
import torch
from tad_ext.ops import backend_info, fused_tad_loss, masked_log_softmax, reference, token_statistics
torch.manual_seed(0)
print(backend_info()["cpu_capability"])
for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
    s, t = (torch.randn(6, 1301, dtype=torch.float64).mul(3).to(dtype) for _ in range(2))
    labels, steps = torch.arange(6), torch.arange(6)
    x, y = s.clone().requires_grad_(), s.double().requires_grad_()
    ours = fused_tad_loss(x, t, labels, steps, delta=2)
    exact = reference.fused_tad_loss(y, t.double(), labels, steps, delta=2)
    ours.loss.backward(), exact.loss.backward()
    torch.testing.assert_close(ours.loss.double(), exact.loss, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-2, atol=2e-7)
    torch.testing.assert_close(token_statistics(s).entropy, reference.token_statistics(s).entropy, rtol=1e-5, atol=1e-5)
    assert torch.equal(token_statistics(s).token, s.argmax(-1))
for dtype in (torch.bfloat16, torch.float16):  # every value of the dtype there and back, a row at a time
    every = torch.arange(-2**15, 2**15).to(torch.int16).view(dtype)
    rows = torch.stack([every, torch.zeros_like(every)], -1)
    finite = every.isfinite()
    ours = masked_log_softmax(rows, dtype=torch.float32)[finite]
    torch.testing.assert_close(ours, rows[finite].float().log_softmax(-1), rtol=1e-6, atol=1e-6)
    assert torch.equal(masked_log_softmax(rows)[finite], ours.to(dtype))
"""

FORK = """
import os, sys, torch
from tad_ext.ops import fused_linear_tad_loss, fused_tad_loss, masked_log_softmax, token_statistics

def everything():
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(8, 4000, generator=generator) for _ in range(2))
    hidden, head = torch.randn(8, 32, generator=generator), torch.randn(4000, 32, generator=generator)
    entries = torch.arange(8), torch.arange(8)
    results = list(token_statistics(student))
    for x, loss in (
        (student, lambda x: fused_tad_loss(x, teacher, *entries, delta=2).loss),
        (hidden, lambda x: fused_linear_tad_loss(x, hidden.flip(0), head, *entries, delta=2).loss),
        (student, lambda x: masked_log_softmax(x).square().mean()),
    ):
        x = x.clone().requires_grad_()
        value = loss(x)
        value.backward()
        results += [value.detach(), x.grad]
    return results

torch.set_num_threads(2)
expected = everything()
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # as a DataLoader worker does
    os._exit(0 if all(torch.equal(a, b) for a, b in zip(everything(), expected)) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.parametrize("instruction_set", ["portable", "avx2", "avx512"])
def test_numerics(instruction_set: str) -> None:
    result = run(NUMERICS, TAD_CPU_ISA=instruction_set)
    if "as far as this processor has it" in result.stderr:
        pytest.skip(f"this processor has no {instruction_set}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [instruction_set]


def test_an_unknown_instruction_set_is_named() -> None:
    assert "TAD_CPU_ISA is 'mmx'" in run(NUMERICS, TAD_CPU_ISA="mmx").stderr


def test_a_command_names_an_unknown_instruction_set_before_it_works() -> None:
    program = "from tad_ext.cli import main; main(['generate', '--model', 'nowhere', '--prompt', 'hello'])"
    message = run(program, TAD_CPU_ISA="mmx").stderr
    assert message.startswith("tad generate: error: TAD_CPU_ISA is 'mmx', expected portable, avx2 or avx512")
    assert message.count("\n") == 1


def test_after_a_fork() -> None:
    result = run(FORK, OMP_NUM_THREADS="2")
    assert result.returncode == 0, result.stderr


def test_the_reference_can_be_chosen() -> None:
    program = (
        "import torch; from tad_ext import ops; ops.reference.truncate_logits = lambda *_, **__: 'reference'; "
        "print(ops.truncate_logits(torch.zeros(2, 3), temperature=1.0), ops.backend_info()['compiled'])"
    )
    result = run(program, TAD_EXT_REFERENCE="1")
    assert result.stdout.split() == ["reference", "False"]
