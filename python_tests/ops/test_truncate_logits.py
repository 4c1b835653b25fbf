"""truncate_logits against a sort in float64, and hand-worked rows."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_checks import CUDA_ON_HOST
from torch import Tensor

from tad_ext.ops import reference, truncate_logits

SETTINGS = [(None, 0.9), (None, 0.3), (None, 0.999), (5, 1.0), (1, 1.0), (40, 0.8), (None, 1e-9), (None, 1.0)]


def assert_truncated(
    logits: Tensor, temperature: float, top_k: int | None, top_p: float, *, rounding: float = 1e-6
) -> None:
    """A logit stays or becomes -inf as the reference says in float64, for every `top_p` within rounding of it."""
    found = truncate_logits(logits, temperature=temperature, top_k=top_k, top_p=top_p)
    assert found.dtype == logits.dtype
    assert found.shape == logits.shape
    stays = (found == logits) | (found.isnan() & logits.isnan())
    assert (stays | (found == -torch.inf)).all()
    least, most = top_p, top_p
    if top_p < 1:
        least, most = max(top_p - rounding, 1e-30), min(top_p + rounding, 1 - 1e-12)
    surely, perhaps = (
        reference.truncate_logits(logits.double(), temperature=temperature, top_k=top_k, top_p=p) > -torch.inf
        for p in (least, most)
    )
    nan = logits.isnan()
    assert (stays | ~(surely | nan)).all()
    assert (~stays | perhaps | nan | (logits == -torch.inf)).all()
    lowest = logits.masked_fill(~stays | nan | (logits == -torch.inf), torch.inf).amin(-1, keepdim=True)
    assert (stays | (logits < lowest)).all(), "what stays is larger than all that does not"


@pytest.mark.parametrize(("top_k", "top_p"), SETTINGS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 6.0])
def test_agrees_with_a_sort_in_float64(
    device: str, dtype: torch.dtype, scale: float, top_k: int | None, top_p: float
) -> None:
    for vocabulary in (1, 2, 43, 513, 3000):
        generator = torch.Generator().manual_seed(vocabulary)
        logits = torch.randn(2, 3, vocabulary, generator=generator, dtype=torch.float64) * scale
        assert_truncated(logits.to(device, dtype), 0.8, top_k, top_p)


def test_the_vocabulary_of_a_model(device: str) -> None:
    for vocabulary in [20_001] if CUDA_ON_HOST else [126_464, 152_065]:
        for scale in (1.0, 5.0):
            logits = torch.randn(2, vocabulary, generator=torch.Generator().manual_seed(0)) * scale
            for setting in ((None, 0.95), (1000, 0.9)):
                assert_truncated(logits.to(device), 1.1, *setting)


@given(
    values=st.lists(
        st.sampled_from([-torch.inf, -0.0, 0.0, torch.inf, torch.nan]) | st.floats(-9, 9, width=16),
        min_size=1,
        max_size=40,
    ),
    temperature=st.floats(0.2, 3),
    top_k=st.none() | st.integers(1, 45),
    top_p=st.floats(0.01, 1),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]),
)
def test_property_ties_and_numbers_that_are_none(
    device: str, values: list[float], temperature: float, top_k: int | None, top_p: float, dtype: torch.dtype
) -> None:
    assert_truncated(torch.tensor([values], device=device, dtype=dtype), temperature, top_k, top_p)


def kept(device: str, logits: list[float], **settings: float) -> list[int]:
    found = truncate_logits(torch.tensor(logits, device=device), **{"temperature": 1.0} | settings)
    return (found > -torch.inf).nonzero()[:, 0].tolist()


def test_by_hand(device: str) -> None:
    p = torch.tensor([0.1, 0.4, 0.2, 0.3]).log().tolist()
    assert kept(device, p, top_p=0.39) == [1]
    assert kept(device, p, top_p=0.41) == [1, 3]
    assert kept(device, p, top_p=0.91) == [0, 1, 2, 3]
    assert kept(device, p, top_k=2) == [1, 3]
    assert kept(device, p, top_k=2, top_p=0.5) == [1], "among the best two, 0.4 is 0.57"
    assert kept(device, p, temperature=0.5, top_p=0.8) == [1, 3], "in proportion to 1, 16, 4, 9"
    assert kept(device, [2.0, 1.0, 2.0, 2.0, 0.0], top_k=2) == [0, 2, 3]
    assert kept(device, [-0.0, 0.0, 0.0, -1.0], top_k=1) == [0, 1, 2]
    # Exactly representable sums: a half is a half, so one of two equal ones suffices, and its tie stays.
    assert kept(device, [0.0, 0.0, -torch.inf], top_p=0.5) == [0, 1]
    assert kept(device, p, temperature=1e-38, top_p=0.99) == [1]
    assert kept(device, p, temperature=1e38, top_p=0.6) == [1, 2, 3], "all alike"


def test_rows_without_probabilities_stay(device: str) -> None:
    rows = torch.tensor([[torch.nan, 1.0, 2.0], [torch.inf, 1.0, 2.0], [-torch.inf] * 3], device=device)
    assert torch.equal(truncate_logits(rows, temperature=1.0, top_p=0.1).nan_to_num(nan=7), rows.nan_to_num(nan=7))
    found = truncate_logits(rows, temperature=1.0, top_k=2, top_p=0.1)
    assert [(row != -torch.inf).tolist() for row in found] == [
        [True, False, True], [True, False, True], [False] * 3
    ]  # fmt: skip
    assert torch.equal(truncate_logits(rows[:1], temperature=1.0, top_k=1).isnan(), rows[:1].isnan())
    assert (truncate_logits(rows[:1], temperature=1.0, top_k=1) > -torch.inf).sum() == 2, "the last of one is NaN"


def test_shapes_and_strides(device: str) -> None:
    assert truncate_logits(torch.zeros(0, 3, 5, device=device), temperature=1.0, top_p=0.5).shape == (0, 3, 5)
    logits = torch.randn(4, 30, 6, device=device)
    for view in (logits.mT, logits[:, ::2], logits[1:3, :, 1:]):
        found = truncate_logits(view, temperature=1.0, top_p=0.6)
        assert torch.equal(found, truncate_logits(view.contiguous(), temperature=1.0, top_p=0.6))
    assert not truncate_logits(logits.requires_grad_(), temperature=1.0, top_k=2).requires_grad


def test_same_bits_at_any_batch_size_and_thread_count(device: str) -> None:
    logits = torch.randn(16, 5003, device=device)
    whole = truncate_logits(logits, temperature=0.7, top_k=4000, top_p=0.9)
    try:
        torch.set_num_threads(3)
        assert torch.equal(whole, truncate_logits(logits, temperature=0.7, top_k=4000, top_p=0.9))
    finally:
        torch.set_num_threads(1)
    for row in (0, 5, 15):
        assert torch.equal(whole[row], truncate_logits(logits[row], temperature=0.7, top_k=4000, top_p=0.9))


def test_opcheck(device: str) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(4, 9, device=device).to(dtype)
        for setting in ((None, 0.5), (3, 1.0)):
            torch.library.opcheck(torch.ops.tad_ext.truncate_logits.default, (logits, 0.7, *setting))


def test_compiles_without_graph_breaks(device: str) -> None:
    def step(x: Tensor) -> Tensor:
        return truncate_logits(x * 2, temperature=0.7, top_k=20, top_p=0.8).exp()

    logits = torch.randn(3, 50, device=device)
    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(logits), step(logits))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"logits": torch.zeros(2, 3, dtype=torch.int64)}, TypeError, "logits has dtype"),
        ({"temperature": 0.0}, ValueError, "temperature is 0, expected a finite number > 0"),
        ({"temperature": float("inf")}, ValueError, "temperature is inf"),
        ({"top_k": 0}, ValueError, "top_k is 0, expected an integer >= 1"),
        ({"top_p": 0.0}, ValueError, "top_p is 0, expected 0 < value <= 1"),
        ({"top_p": 1.5}, ValueError, "top_p is 1.5"),
        ({"top_p": float("nan")}, ValueError, "top_p is nan"),
    ],
)
def test_bad_arguments_are_named(device: str, arguments: dict, error: type[Exception], message: str) -> None:
    logits = arguments.pop("logits", torch.zeros(4, 5)).to(device)
    with pytest.raises(error, match=message):
        truncate_logits(logits, **{"temperature": 1.0} | arguments)
