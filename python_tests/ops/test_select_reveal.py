"""select_reveal and eligible_positions: hand-worked choices, and whole decodes beside the reference's."""

from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_checks import on

from tad_ext.ops import (
    DecodeState,
    Selection,
    eligible_positions,
    pack_offsets,
    reference,
    select,
    select_reveal,
    token_statistics,
)
from tad_ext.ops.selection import Rule

MASK = 5
INF = float("inf")


def logits_with(confidences: list[float], device: str) -> torch.Tensor:
    """Logits over 8 tokens: row i gives token 1 the probability confidences[i], and the rest to token 2."""
    p = torch.tensor(confidences, dtype=torch.float64, device=device)
    logits = torch.full((len(p), 8), -INF, dtype=torch.float64, device=device)
    logits[:, 1], logits[:, 2] = p.log(), (1 - p).log()
    return logits.float()


@pytest.mark.parametrize(
    ("selection", "revealed"),
    [
        # confidences 0.95 0.6 0.9 0.8; margins 0.9 0.2 0.8 0.6; entropies 0.199 0.673 0.325 0.500
        (Selection("topk", 1), [0]),
        (Selection("topk", 2), [0, 2]),
        (Selection("topk", 9), [0, 1, 2, 3]),
        (Selection("topk", 2.5), [0, 2]),
        (Selection("confidence", 0.85), [0, 2]),
        (Selection("confidence", 0.99), [0]),  # forced progress
        (Selection("confidence", 0.0), [0, 1, 2, 3]),
        (Selection("factor", 0.4), [0, 2]),  # bounds 1 - 0.4 / (n + 1): (0.8), 0.867, 0.9: ranks 1 and 2
        (Selection("factor", 0.0), [0]),
        (Selection("factor", 2.1), [0, 1, 2, 3]),  # 0.3, 0.475, 0.58
        (Selection("margin", 0.5), [0, 2, 3]),
        (Selection("entropy", 0.4), [0, 2]),
        (Selection("entropy", 0.0), [0]),
        (Selection("entropy-budget", 0.19), [0]),  # spent before the second: 0.199
        (Selection("entropy-budget", 0.2), [0, 2]),
        (Selection("entropy-budget", 0.53), [0, 2, 3]),  # before the third: 0.524
        (Selection("entropy-budget", INF), [0, 1, 2, 3]),
    ],
)
def test_hand_worked_choices(device: str, selection: Selection, revealed: list[int]) -> None:
    state = DecodeState.start(1, 4, block_length=4, device=device)
    canvas = torch.full((1, 4), MASK, device=device)
    suppress = torch.tensor([MASK], device=device)
    statistics, chosen = select_reveal(
        canvas, logits_with([0.95, 0.6, 0.9, 0.8], device), state, selection, mask_token_id=MASK,
        suppress_tokens=suppress,
    )  # fmt: skip
    assert chosen[0].nonzero()[:, 0].tolist() == revealed
    assert canvas[0].tolist() == [1 if i in revealed else MASK for i in range(4)]
    assert state.reveal_step[0].tolist() == [1 if i in revealed else 0 for i in range(4)]
    torch.testing.assert_close(statistics.confidence, torch.tensor([[0.95, 0.6, 0.9, 0.8]], device=device))


def test_padding_and_broken_rows_are_never_accepted(device: str) -> None:
    for rule in get_args(Rule):
        state = DecodeState.start(1, 6, block_length=6, device=device)
        state.positions = torch.tensor([[0, -1, 2, 3, 4, -1]], device=device)
        logits = logits_with([0.7, 0.99, 0.99, 0.6, 0.65, 0.99], device)
        logits[2, 3] = torch.nan
        canvas = torch.full((1, 6), MASK, device=device)
        everything = 0.0 if rule in ("confidence", "margin") else 10.0
        statistics, revealed = select_reveal(
            canvas, logits, state, Selection(rule, everything), mask_token_id=MASK,
            suppress_tokens=torch.tensor([MASK], device=device),
        )  # fmt: skip
        assert revealed.tolist() == [[True, False, False, True, True, False]], rule
        assert statistics.valid.tolist() == [[True, False, False, True, True, False]]


@given(
    batch=st.integers(0, 4),
    block_length=st.sampled_from([1, 3, 5, 32]),
    block_count=st.integers(1, 3),
    selection=st.one_of(
        st.builds(Selection, st.just("topk"), st.floats(0, 6)),
        st.builds(Selection, st.sampled_from(["confidence", "margin"]), st.sampled_from([0.0, 0.1, 0.3, 1.0])),
        st.builds(Selection, st.sampled_from(["factor", "entropy", "entropy-budget"]), st.floats(0, 4)),
    ),
    temperature=st.sampled_from([0.0, 1.0]),
    eos=st.sampled_from([(), (3,)]),
    special=st.sampled_from(["nothing", "nan", "-inf", "ties"]),
    seed=st.integers(0, 2**31),
)
def test_property_whole_decodes_agree_with_the_reference(
    device: str,
    batch: int,
    block_length: int,
    block_count: int,
    selection: Selection,
    temperature: float,
    eos: tuple[int, ...],
    special: str,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    length = block_length * block_count
    suppress = torch.tensor([0, MASK], device=device)
    canvas, states = [torch.full((batch, length), MASK, device=device) for _ in range(2)], []
    for _ in range(2):
        states.append(
            DecodeState.start(
                batch, length, block_length=block_length, block_add_threshold=0.5, decoded_token_threshold=0.5,
                eos_token_ids=eos, device=device,
            )
        )  # fmt: skip
    positions = [torch.zeros_like(canvas[0]) for _ in range(2)]
    functions = ((select_reveal, eligible_positions), (reference.select_reveal, reference.eligible_positions))
    width = length
    for _ in range(length):
        logits = torch.randn(batch * width, 40, generator=generator, dtype=torch.float64) * 2
        broken = torch.rand(batch * width, generator=generator) < 0.2
        if special == "nan":
            logits[broken, 7] = torch.nan
        elif special == "-inf":
            logits[broken] = -INF
        elif special == "ties":
            logits[broken] = logits[:1].clone()
        logits = logits.to(device)
        results = []
        for i, (step, look) in enumerate(functions):
            look(canvas[i], states[i].blocks, positions[i], block_length=block_length, mask_token_id=MASK)
            states[i].positions = positions[i][:, :width].contiguous()
            sampling = {}
            if temperature:
                offsets = pack_offsets(states[i].forwards[:, None] + 1, states[i].positions)
                seeds = torch.arange(batch, device=device)[:, None]
                sampling = {"temperature": temperature, "seeds": seeds, "offsets": offsets}
            statistics, revealed = step(
                canvas[i], logits, states[i], selection, mask_token_id=MASK, suppress_tokens=suppress, **sampling
            )
            progress = look(canvas[i], states[i].blocks, positions[i], block_length=block_length, mask_token_id=MASK)
            state = states[i]
            results.append([
                canvas[i], state.reveal_step, state.forwards, state.blocks, state.done, positions[i], revealed,
                statistics.valid, progress,
            ])  # fmt: skip
        for ours, theirs in zip(*results):
            assert torch.equal(ours, theirs)


def test_the_statistics_are_those_of_token_statistics(device: str) -> None:
    logits = torch.randn(6, 20_000, generator=torch.Generator().manual_seed(0)).to(device)
    suppress = torch.tensor([MASK], device=device)
    state = DecodeState.start(2, 3, block_length=3, device=device)
    ours, _ = select_reveal(
        torch.full((2, 3), MASK, device=device), logits, state, Selection("entropy", 1.0), mask_token_id=MASK,
        suppress_tokens=suppress,
    )  # fmt: skip
    theirs = token_statistics(logits.view(2, 3, -1), suppress_tokens=suppress)
    for a, b in zip(ours, theirs):
        assert torch.equal(a, b)


def test_a_rule_that_does_not_exist_is_refused_in_pytorch_too(device: str) -> None:
    state = DecodeState.start(1, 4, block_length=4, device=device)
    statistics = token_statistics(torch.randn(1, 4, 9, device=device))
    with pytest.raises(ValueError, match="rule is 'best', expected one of topk, confidence"):
        select(statistics, state, Selection("best", 1))


def test_eligible_positions_by_hand(device: str) -> None:
    canvas = torch.tensor([[1, MASK, 1, 1, MASK, MASK], [MASK] * 6, [1] * 6], device=device)
    positions = torch.zeros_like(canvas)
    progress = eligible_positions(
        canvas, torch.tensor([2, 1, 3], device=device), positions, block_length=2, mask_token_id=MASK
    )
    assert progress.tolist() == [[0, 1, 3], [0, 2, 6], [0, 0, 0]]
    assert positions.tolist() == [[1, -1, -1, -1, -1, -1], [0, 1, -1, -1, -1, -1], [-1] * 6]
    progress = eligible_positions(
        canvas, torch.tensor([3, 3, 3], device=device), positions, block_length=2, mask_token_id=MASK
    )
    assert progress.tolist() == [[0, 3, 3], [0, 6, 6], [0, 0, 0]]
    assert positions.tolist() == [[1, 4, 5, -1, -1, -1], [0, 1, 2, 3, 4, 5], [-1] * 6]


def test_opcheck(device: str) -> None:
    canvas = torch.full((2, 6), MASK, device=device)
    state = DecodeState.start(2, 6, block_length=3, device=device)
    logits, suppress = torch.randn(6, 40, device=device), torch.tensor([MASK], device=device)
    torch.library.opcheck(
        torch.ops.tad_ext.select_reveal.default,
        (
            canvas, state.reveal_step, state.forwards, state.blocks, state.done, state.positions, logits, "entropy",
            0.5, 0.0, suppress, None, None, 3, 1.0, 1.0, "row", MASK, [],
        ),
    )  # fmt: skip
    torch.library.opcheck(
        torch.ops.tad_ext.eligible_positions.default, (canvas, state.blocks, torch.zeros_like(canvas), 3, MASK)
    )


@pytest.mark.usefixtures("indices_are_checked")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"selection": Selection("best", 1)}, ValueError, "rule is 'best', expected one of topk, confidence, factor"),
        ({"selection": Selection("topk", float("nan"))}, ValueError, "value is nan"),
        ({"logits": torch.zeros(5, 40)}, ValueError, r"logits has shape \[5, 40\], expected a row for each of the 6"),
        ({"logits": torch.zeros(6, 40).long()}, TypeError, "logits has dtype"),
        ({"suppress_tokens": torch.tensor([1, 2])}, ValueError, "suppress_tokens does not name the mask token 5"),
        ({"suppress_tokens": torch.tensor([MASK, 40])}, ValueError, r"suppress_tokens\[1\] is 40"),
        ({"suppress_tokens": torch.tensor([MASK, 1])}, ValueError, "suppress_tokens are not in ascending order"),
        ({"temperature": -1.0}, ValueError, "temperature is -1"),
        ({"temperature": 1.0}, ValueError, "seeds and offsets are expected"),
        ({"canvas": torch.zeros(6, 2).long().T}, ValueError, "canvas has strides"),
    ],
)
def test_bad_arguments_are_named(device: str, changes: dict, error: type[Exception], message: str) -> None:
    arguments = {
        "canvas": torch.full((2, 6), MASK, device=device), "logits": torch.zeros(6, 40, device=device),
        "state": DecodeState.start(2, 6, block_length=3, device=device), "selection": Selection("topk", 1),
        "mask_token_id": MASK, "suppress_tokens": torch.tensor([MASK], device=device), **on(device, changes),
    }  # fmt: skip
    with pytest.raises(error, match=message):
        select_reveal(**arguments)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"block_length": 4}, ValueError, "block_length is 4, expected a divisor of the generation length 6"),
        ({"positions": torch.zeros(2, 5).long()}, ValueError, "positions has shape"),
        ({"positions": torch.zeros(2, 6)}, TypeError, "positions has dtype"),
        ({"blocks": torch.ones(3).long()}, ValueError, "blocks has shape"),
        ({"canvas": torch.zeros(6).long()}, ValueError, "canvas has shape"),
        ({"canvas": torch.zeros(2, 0).long()}, ValueError, "block_length is 3, expected a divisor of the generation"),
    ],
)
def test_bad_arguments_of_eligible_positions_are_named(
    device: str, changes: dict, error: type[Exception], message: str
) -> None:
    arguments = {
        "canvas": torch.full((2, 6), MASK, device=device), "blocks": torch.ones(2, device=device).long(),
        "positions": torch.zeros(2, 6, device=device).long(), "block_length": 3, "mask_token_id": MASK,
        **on(device, changes),
    }  # fmt: skip
    with pytest.raises(error, match=message):
        eligible_positions(**arguments)
