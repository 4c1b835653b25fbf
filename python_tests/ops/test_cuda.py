"""What only a GPU has: streams, other devices, graphs, waiting for the device, and tensors beyond 2**31 elements."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from every_operator import Case, every_operator
from op_checks import loss_and_gradient, random_entries
from torch import Tensor

from tad_ext.decoding import ConfidenceThreshold, DecodeConfig, EntropyThreshold, TopK, decode
from tad_ext.models.tiny import TinyDiffusionConfig, TinyDiffusionLM
from tad_ext.ops import (
    DecodeState,
    Selection,
    commit_reveal,
    eligible_positions,
    fused_linear_tad_loss,
    fused_tad_loss,
    masked_log_softmax,
    select_reveal,
    token_statistics,
)
from tad_ext.ops.launch_plans import launch_plans

pytestmark = pytest.mark.gpu
every_case = pytest.mark.parametrize("case", every_operator(), ids=str)


@pytest.fixture(autouse=True)
def _nobody_looks_at_indices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking waits for the device, and cannot be captured in a graph."""
    monkeypatch.delenv("TAD_EXT_DEBUG", raising=False)


def inputs_on(device: str, case: Case, seed: int) -> list[Tensor]:
    return [tensor.to(device) for tensor in case.inputs(seed)]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    """Numbers are close; ids, counts and flags are equal."""
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=1e-5, atol=2e-6)


@every_case
def test_the_cpu_and_the_gpu_agree(case: Case) -> None:
    for seed in range(3):
        found = case.run(*inputs_on("cuda", case, seed))
        assert all(tensor.device.type == "cuda" for tensor in found)
        assert_same(found, case.run(*case.inputs(seed)))


@every_case
def test_work_goes_to_the_current_stream(case: Case) -> None:
    """On a side stream that is busy at first; whoever reads or writes on another stream sees the old inputs."""
    old, new = inputs_on("cuda", case, 1), inputs_on("cuda", case, 2)
    expected = case.run(*new)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # cycles, about a tenth of a second
        for a, b in zip(old, new):
            a.copy_(b)
        found = case.run(*old)
    stream.synchronize()
    assert_same(found, expected)


@every_case
def test_tensors_may_be_on_another_than_the_current_device(case: Case) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    assert torch.cuda.current_device() == 0
    found = case.run(*inputs_on("cuda:1", case, 0))
    assert all(tensor.device.index == 1 for tensor in found)
    assert torch.cuda.current_device() == 0
    assert_same(found, case.run(*case.inputs(0)))


@every_case
def test_nothing_waits_for_the_device(case: Case) -> None:
    inputs = inputs_on("cuda", case, 0)
    case.run(*inputs)  # loading kernels and making handles may wait
    torch.cuda.synchronize()
    with _waiting_is_an_error():
        case.run(*inputs)
    torch.cuda.synchronize()


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_waiting_would_be_noticed() -> None:
    with _waiting_is_an_error(), pytest.raises(RuntimeError, match="synchronizing"):
        torch.ones(3, device="cuda").nonzero()


@every_case
def test_a_captured_graph_follows_its_inputs(case: Case) -> None:
    """Other logits, labels, steps, rows and canvases, that is also other numbers of near and distant entries."""
    static = inputs_on("cuda", case, 0)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            case.run(*static)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = case.run(*static)
    for seed in (1, 2, 0):
        inputs = inputs_on("cuda", case, seed)
        for a, b in zip(static, inputs):
            a.copy_(b)
        graph.replay()
        assert_same(results, case.run(*inputs))


def test_launch_plans_use_what_this_gpu_has() -> None:
    plans = launch_plans()
    assert all(plan.blocks_per_multiprocessor >= 1 for plan in plans)
    if torch.cuda.get_device_properties(0).name == "NVIDIA H200":
        found = {(plan.vocabulary, plan.dtype, plan.teacher): plan for plan in plans}
        pair, longest = found[126_464, "bfloat16", True], found[152_064, "float32", True]
        assert (pair.cluster_blocks, pair.kept_bytes, pair.blocks_per_multiprocessor) == (8, 63_232, 3)
        assert (longest.cluster_blocks, longest.kept_bytes, longest.blocks_per_multiprocessor) == (16, 76_032, 2)


def _calls() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Every function with all of its tensors, on the CPU."""
    student, teacher, labels, steps = random_entries(6, 9, torch.float32, "cpu")
    rows, canvas, zeros = torch.arange(6), torch.full((2, 6), 8), torch.zeros(2, 3)
    positions = torch.arange(3).repeat(2, 1)
    state = DecodeState.start(2, 6, block_length=3)
    entries = {"labels": labels, "steps_to_reveal": steps, "delta": 2, "row_weight": torch.ones(6)}
    hidden = {"student_hidden": student, "teacher_hidden": teacher, "lm_head_weight": torch.ones(9, 9)}
    logits = {"student_logits": student, "teacher_logits": teacher, "student_rows": rows}
    return {
        "fused_tad_loss": (fused_tad_loss, {**logits, **entries, "teacher_rows": rows}),
        "fused_linear_tad_loss": (fused_linear_tad_loss, {**hidden, **entries, "teacher_rows": rows}),
        "masked_log_softmax": (masked_log_softmax, {"logits": student, "rows": rows}),
        "token_statistics": (
            token_statistics,
            {
                "logits": student, "rows": rows, "suppress_tokens": rows[:1], "query_tokens": rows[:1],
                "temperature": 1.0, "seeds": rows, "offsets": rows,
            },
        ),
        "commit_reveal": (
            commit_reveal,
            {
                "canvas": canvas, "reveal_step": state.reveal_step, "forwards": state.forwards,
                "blocks": state.blocks, "done": state.done, "positions": positions, "tokens": zeros.long(),
                "score": zeros, "accept": zeros.bool(), "block_length": 3, "mask_token_id": 8,
            },
        ),
        "eligible_positions": (
            eligible_positions,
            {
                "canvas": canvas, "blocks": state.blocks, "positions": canvas.clone(), "block_length": 3,
                "mask_token_id": 8,
            },
        ),
        "select_reveal": (
            _select_reveal,
            {
                "canvas": canvas, "positions": positions, "logits": student, "suppress_tokens": rows[:1] + 8,
                "seeds": positions, "offsets": positions,
            },
        ),
    }  # fmt: skip


def _select_reveal(canvas: Tensor, positions: Tensor, logits: Tensor, **sampling: Tensor) -> None:
    state = DecodeState.start(2, 6, block_length=3, device=canvas.device)
    state.positions = positions
    select_reveal(canvas, logits, state, Selection("topk", 1), mask_token_id=8, temperature=1.0, **sampling)


@pytest.mark.parametrize(
    ("function", "argument"),
    [(name, key) for name, (_, values) in _calls().items() for key in values if isinstance(values[key], Tensor)],
)
def test_a_tensor_on_another_device_is_named(function: str, argument: str) -> None:
    call, arguments = _calls()[function]
    on_gpu = {name: value.cuda() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    call(**on_gpu)
    with pytest.raises(ValueError, match=r"\w+ is on (cuda:0|cpu), expected (cuda:0|cpu)"):
        call(**on_gpu | {argument: arguments[argument]})


@pytest.mark.parametrize("policy", [TopK(1), TopK(3), EntropyThreshold(1.2), ConfidenceThreshold(0.4)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_decoding_gives_the_tokens_of_the_cpu(policy: Any, temperature: float) -> None:
    """On a model whose choices stay the same when its logits move by 3e-4."""
    torch.manual_seed(2)
    model = TinyDiffusionLM(
        TinyDiffusionConfig(
            vocab_size=12, num_hidden_layers=2, initializer_range=0.4, mask_token_id=10, eos_token_ids=[9],
            suppress_token_ids=[11],
        )
    )  # fmt: skip
    prompts = [[1, 2, 3], [4], [5, 6, 7, 8, 0, 1, 2], [3, 3], [2, 4, 6, 8]]
    config = DecodeConfig(
        gen_length=16, block_length=4, policy=policy, block_add_threshold=0.25, decoded_token_threshold=0.5,
        temperature=temperature, batch_size=3,
    )  # fmt: skip
    expected = decode(model, prompts, config)
    found = decode(model.to("cuda"), prompts, config)
    assert found.sequences == expected.sequences
    assert torch.equal(found.reveal_step, expected.reveal_step)
    assert torch.equal(found.forwards, expected.forwards)


LLADA_VOCABULARY = 126_464
FAR_ROWS = 34_000  # row 16,982 begins beyond 2**31 elements, row 33,962 beyond 2**32


@pytest.fixture(scope="module")
def far_logits() -> Tensor:
    if torch.cuda.mem_get_info()[0] < 48 * 2**30:
        pytest.skip("less than 48 GiB of GPU memory free")
    logits = torch.zeros(FAR_ROWS, LLADA_VOCABULARY, dtype=torch.bfloat16, device="cuda")
    logits[[0, 16_990, 33_990]] = torch.randn(3, LLADA_VOCABULARY, device="cuda").bfloat16()
    return logits


@pytest.fixture
def far_rows() -> Tensor:
    return torch.tensor([33_990, 0, 16_990], device="cuda")


@pytest.mark.large
@pytest.mark.parametrize("form", ["dense", "compact"])
def test_loss_beyond_32_bit_indices(far_logits: Tensor, far_rows: Tensor, form: str) -> None:
    labels, steps = torch.tensor([5, 6, 7], device="cuda"), torch.tensor([1, 9, 2], device="cuda")
    options = {"delta": 2, "near_count": 1, "distant_count": 1}
    near = far_logits[far_rows]
    expected, gradient = loss_and_gradient(fused_tad_loss, near, near.roll(1, 0), labels, steps, **options)
    if form == "dense":
        options |= {"student_rows": far_rows, "teacher_rows": far_rows.roll(1)}
    else:  # every row has an entry, and most are silent
        labels = torch.zeros(FAR_ROWS, dtype=torch.int64, device="cuda").index_put_((far_rows,), labels)
        steps = torch.zeros(FAR_ROWS, dtype=torch.int64, device="cuda").index_put_((far_rows,), steps)
        teacher_rows = torch.full_like(labels, -1).index_put_((far_rows,), far_rows.roll(1))
        options |= {"teacher_rows": teacher_rows}
    student = far_logits.detach().requires_grad_()
    result = fused_tad_loss(student, far_logits, labels, steps, **options)
    (found,) = torch.autograd.grad(result.loss, student)
    torch.testing.assert_close(result.loss, expected.loss)
    torch.testing.assert_close(found[far_rows], gradient)
    assert sum(int(part.any(-1).sum()) for part in found.split(1000)) == 3


@pytest.mark.large
def test_log_softmax_beyond_32_bit_indices(far_logits: Tensor, far_rows: Tensor) -> None:
    expected = far_logits[far_rows].float().log_softmax(-1).bfloat16()
    torch.testing.assert_close(masked_log_softmax(far_logits)[far_rows], expected)
    student = far_logits.detach().requires_grad_()
    out = masked_log_softmax(student, rows=far_rows)
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad(out[:, 3].float().sum(), student)
    probability = far_logits[far_rows].float().softmax(-1)
    probability[:, 3] -= 1
    torch.testing.assert_close(gradient[far_rows].float(), -probability, rtol=1e-2, atol=1e-6)
    assert sum(int(part.any(-1).sum()) for part in gradient.split(1000)) == 3


@pytest.mark.large
def test_statistics_beyond_32_bit_indices(far_logits: Tensor, far_rows: Tensor) -> None:
    queries = torch.tensor([7], device="cuda")
    expected = token_statistics(far_logits[far_rows], query_tokens=queries)
    chosen = token_statistics(far_logits, rows=far_rows, query_tokens=queries)
    whole = token_statistics(far_logits, query_tokens=queries)
    for a, b, c in zip(expected, chosen, whole):
        assert torch.equal(a, b)
        assert torch.equal(a, c[far_rows])
