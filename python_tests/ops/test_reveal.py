"""commit_reveal and unmask_step: hand-worked steps, and the compiled operator against the reference on random ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_checks import on

from tad_ext.ops import DecodeState, TokenStatistics, commit_reveal, reference, unmask_step

MASK = 99


def step(  # type: ignore[no-untyped-def]
    device,
    canvas,
    tokens,
    score,
    accept,
    *,
    block_length,
    blocks=1,
    positions=None,
    eos=(),
    top_tokens=None,
    **schedule,
):
    """One step of a single row; returns (canvas, reveal_step, blocks, done, revealed) as plain lists."""

    def tensor(values: list) -> torch.Tensor:
        return torch.tensor(values, device=device)

    canvas = tensor([canvas])
    steps = torch.where(canvas == MASK, 0, 1)
    width = len(tokens)
    positions = tensor([list(range(width)) if positions is None else positions])
    forwards, created, done = tensor([4]), tensor([blocks]), tensor([False])
    revealed = commit_reveal(
        canvas, steps, forwards, created, done, positions, tensor([tokens]), tensor([score]), tensor([accept]),
        top_tokens=None if top_tokens is None else tensor([top_tokens]), block_length=block_length,
        mask_token_id=MASK, eos_token_ids=eos, **schedule,
    )  # fmt: skip
    assert forwards.item() == 5
    return canvas[0].tolist(), steps[0].tolist(), created.item(), done.item(), revealed[0].tolist()


def test_accepted_entries_are_revealed(device: str) -> None:
    canvas, steps, blocks, done, revealed = step(
        device, [MASK] * 4, [1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], [True, False, True, False], block_length=4
    )
    assert canvas == [1, MASK, 3, MASK]
    assert steps == [5, 0, 5, 0]
    assert (blocks, done) == (1, False)
    assert revealed == [True, False, True, False]


def test_forced_progress_takes_the_best_and_ties_go_to_the_lowest_position(device: str) -> None:
    nan = float("nan")
    for score, best in (
        ([0.1, 0.7, 0.7, 0.2], 1),
        ([nan, 0.1, 0.7, 0.2], 2),
        ([nan] * 4, 0),
        ([-torch.inf] * 4, 0),
        ([nan, -torch.inf, -torch.inf, nan], 0),
    ):
        *_, revealed = step(device, [MASK] * 4, [1, 2, 3, 4], score, [False] * 4, block_length=4)
        assert revealed == [i == best for i in range(4)]


def test_positions_outside_created_blocks_already_revealed_or_padding_are_ignored(device: str) -> None:
    canvas, *_ = step(
        device,
        [7, MASK, MASK, MASK],
        [1, 2, 3, 4, 5],
        [0.9] * 5,
        [True] * 5,
        block_length=2,
        positions=[0, 1, 2, -1, -1],
    )
    assert canvas == [7, 2, MASK, MASK]


def test_a_completed_block_creates_the_next_and_the_last_one_ends_the_row(device: str) -> None:
    canvas, _, blocks, done, _ = step(device, [7, MASK, MASK, MASK], [1, 2], [0.0, 0.0], [True, True], block_length=2)
    assert (canvas, blocks, done) == ([7, 2, MASK, MASK], 2, False)
    canvas, _, blocks, done, _ = step(
        device, [7, 7, 7, MASK], [0, 0, 0, 2], [0.0] * 4, [True] * 4, block_length=2, blocks=2
    )
    assert (canvas, blocks, done) == ([7, 7, 7, 2], 2, True)


def test_blocks_are_added_by_share_at_most_one_per_forward(device: str) -> None:
    accept = [True, False, False, False]
    for threshold, expected in ((0.25, 2), (0.3, 1), (0.0, 2)):
        _, _, blocks, _, _ = step(
            device, [MASK] * 12, [1] * 4, [0.0] * 4, accept, block_length=4, block_add_threshold=threshold
        )
        assert blocks == expected


@pytest.mark.parametrize(
    ("forced_progress", "first", "second", "neither"),
    [("block", [3], [6], []), ("row", [3, 6], [6], [6]), ("blocks", [3, 6], [6], [])],
)
def test_what_is_forced_where_nothing_is_accepted(
    device: str, forced_progress: str, first: list, second: list, neither: list
) -> None:
    canvas = [7, 7, 7, MASK, MASK, MASK, MASK, MASK]
    score = [0.0, 0, 0, 0, 0.1, 0.2, 0.9, 0.3]
    everywhere, second_block = list(range(8)), [-1] * 4 + [4, 5, 6, 7]
    for threshold, positions, expected in (
        (0.75, everywhere, first),
        (0.8, everywhere, [3] if forced_progress == "blocks" else first),
        (0.75, second_block, second),
        (0.8, second_block, neither),
    ):
        *_, revealed = step(
            device, canvas, [1] * 8, score, [False] * 8, block_length=4, blocks=2, positions=positions,
            decoded_token_threshold=threshold, forced_progress=forced_progress,
        )  # fmt: skip
        assert [i for i, yes in enumerate(revealed) if yes] == expected


def test_an_accepted_entry_elsewhere_does_not_stand_for_the_first_block(device: str) -> None:
    accept = [False] * 7 + [True]
    *_, revealed = step(device, [MASK] * 8, [1] * 8, [0.5] * 8, accept, block_length=4, blocks=2)
    assert [i for i, yes in enumerate(revealed) if yes] == [0, 7]


@pytest.mark.parametrize(("forced_progress", "token"), [("row", 2), ("block", 1), ("blocks", 1)])
def test_the_forced_token_of_a_block_is_the_most_probable_by_rule_row(
    device: str, forced_progress: str, token: int
) -> None:
    canvas, *_ = step(
        device, [MASK] * 4, [1] * 4, [0.5] * 4, [False, False, True, False], block_length=2, blocks=2,
        top_tokens=[2] * 4, forced_progress=forced_progress,
    )  # fmt: skip
    assert canvas == [token, MASK, 1, MASK]


def test_the_forced_token_of_a_row_is_its_own(device: str) -> None:
    canvas, *_ = step(
        device, [MASK] * 4, [1] * 4, [0.5, 0, 0, 0], [False] * 4, block_length=2, blocks=2, top_tokens=[2] * 4
    )
    assert canvas == [1, MASK, MASK, MASK]


def test_end_of_sequence_fills_what_follows(device: str) -> None:
    canvas, steps, _, done, _ = step(
        device, [MASK, 5, MASK, 6, MASK, MASK], [1, 0, 42, 0, 42, 3], [0.0] * 6, [False, True, True, False, True, True],
        block_length=6, eos=(41, 42),
    )  # fmt: skip
    assert canvas == [MASK, 5, 42, 42, 42, 42]
    assert steps == [0, 1, 5, 5, 5, 5]
    assert not done
    canvas, *_, done, _ = step(
        device, [7, MASK, MASK], [0, 42, 1], [0.0] * 3, [False, True, False], block_length=3, eos=(42,)
    )
    assert (canvas, done) == ([7, 42, 42], True)
    canvas, *_ = step(device, [7, MASK, MASK], [0, 42, 1], [0.0] * 3, [False, True, False], block_length=3)
    assert canvas == [7, 42, MASK]


@given(
    batch=st.integers(0, 4),
    block_length=st.integers(1, 4),
    block_count=st.integers(1, 4),
    add=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    decoded=st.sampled_from([0.0, 0.5, 0.95, 1.0]),
    forced_progress=st.sampled_from(["row", "block", "blocks"]),
    eos=st.sampled_from([[], [3], [1, 2]]),
    accept_share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_property_whole_decodes_agree_with_the_reference(
    device: str,
    batch: int,
    block_length: int,
    block_count: int,
    add: float,
    decoded: float,
    forced_progress: str,
    eos: list,
    accept_share: float,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    length = block_length * block_count
    runs = []
    for function in (commit_reveal, reference.commit_reveal):
        generator.manual_seed(seed)
        canvas = torch.full((batch, length), MASK, device=device)
        state = DecodeState.start(batch, length, block_length=block_length, device=device)
        history = []
        for _ in range(length + 1):
            positions = torch.arange(length, device=device).expand(batch, -1).clone()
            positions[(torch.rand(batch, length, generator=generator) < 0.1).to(device)] = -1
            revealed = function(
                canvas, state.reveal_step, state.forwards, state.blocks, state.done, positions,
                torch.randint(0, 6, (batch, length), generator=generator).to(device),
                (torch.randint(0, 5, (batch, length), generator=generator) / 5).to(device),
                (torch.rand(batch, length, generator=generator) < accept_share).to(device),
                top_tokens=torch.randint(6, 9, (batch, length), generator=generator).to(device),
                block_length=block_length, block_add_threshold=add, decoded_token_threshold=decoded,
                forced_progress=forced_progress, mask_token_id=MASK, eos_token_ids=eos,
            )  # fmt: skip
            history.append([t.clone() for t in (canvas, state.reveal_step, state.forwards, state.blocks, state.done)])
            history[-1].append(revealed)
        runs.append(history)
    for ours, theirs in zip(*runs):
        for a, b in zip(ours, theirs):
            assert torch.equal(a, b)


def test_unmask_step_never_accepts_invalid_statistics(device: str) -> None:
    canvas = torch.full((1, 4), MASK, device=device)
    state = DecodeState.start(1, 4, block_length=4, device=device)
    logits = torch.randn(1, 4, 120, device=device)
    logits[0, 1] = torch.nan

    def accept_all(statistics: TokenStatistics, state: DecodeState) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones_like(statistics.confidence), state.eligible

    revealed = unmask_step(canvas, logits, state, accept_all, mask_token_id=MASK)
    assert revealed.tolist() == [[True, False, True, True]]
    state.positions = torch.tensor([[1, -1]], device=device)
    broken = torch.full((1, 2, 120), torch.nan, device=device)

    def accept_none(statistics: TokenStatistics, state: DecodeState) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(statistics.confidence), torch.zeros_like(state.eligible)

    assert unmask_step(canvas, broken, state, accept_none, mask_token_id=MASK).tolist() == [[True, False]]
    assert 0 <= canvas[0, 1] < 120
    assert state.done.item()


def test_what_autograd_saved_is_noticed_when_the_canvas_is_written(device: str) -> None:
    canvas = torch.full((1, 4), MASK, device=device)
    weight = torch.randn(100, 3, requires_grad=True, device=device)
    embedded = torch.nn.functional.embedding(canvas, weight).sum()
    state = DecodeState.start(1, 4, block_length=4, device=device)
    ones = torch.ones(1, 4, device=device)
    commit_reveal(
        canvas, state.reveal_step, state.forwards, state.blocks, state.done, state.positions, ones.long(), ones,
        ones.bool(), block_length=4, mask_token_id=MASK,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        embedded.backward()


def test_opcheck(device: str) -> None:
    canvas = torch.full((2, 6), MASK, device=device)
    state = DecodeState.start(2, 6, block_length=3, device=device)
    score = torch.rand(2, 3, device=device)
    arguments = (
        canvas, state.reveal_step, state.forwards, state.blocks, state.done, state.positions,
        torch.ones_like(canvas)[:, :3], torch.ones_like(canvas)[:, :3], score, score < 0.5, 3, 1.0, 1.0, "row", MASK,
        [42],
    )  # fmt: skip
    torch.library.opcheck(torch.ops.tad_ext.commit_reveal.default, arguments)


def test_compiles_without_graph_breaks(device: str) -> None:
    def one(canvas, reveal_step, forwards, blocks, done, positions, tokens, score, accept):  # type: ignore[no-untyped-def]
        revealed = commit_reveal(
            canvas, reveal_step, forwards, blocks, done, positions, tokens, score + 1, accept, block_length=3,
            mask_token_id=MASK,
        )  # fmt: skip
        return revealed.sum()

    results = []
    for function in (one, torch.compile(one, fullgraph=True, backend="aot_eager")):
        canvas = torch.full((2, 6), MASK, device=device)
        state = DecodeState.start(2, 6, block_length=3, device=device)
        score = torch.tensor([[0.1, 0.2, 0.0], [0.5, 0.1, 0.1]], device=device)
        total = function(
            canvas, state.reveal_step, state.forwards, state.blocks, state.done,
            torch.arange(3, device=device).repeat(2, 1), torch.ones_like(score).long(), score, score > 0.3,
        )  # fmt: skip
        results.append((canvas, state.reveal_step, total))
    for a, b in zip(*results):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("indices_are_checked")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"block_length": 4}, ValueError, "block_length is 4, expected a divisor of the generation length 6"),
        ({"block_add_threshold": 1.5}, ValueError, "block_add_threshold is 1.5"),
        ({"decoded_token_threshold": -0.1}, ValueError, "decoded_token_threshold is -0.1"),
        ({"forced_progress": "all"}, ValueError, "forced_progress is 'all', expected one of row, block, blocks"),
        ({"top_tokens": torch.zeros(2, 4).long()}, ValueError, "top_tokens has shape"),
        ({"top_tokens": torch.full((2, 3), MASK)}, ValueError, r"top_tokens\[0\] is the mask token 99"),
        ({"positions": torch.full((2, 3), 6)}, ValueError, r"positions\[0\] is 6"),
        ({"tokens": torch.zeros(2, 4).long()}, ValueError, "tokens has shape"),
        ({"score": torch.zeros(2, 3).double()}, TypeError, "score has dtype"),
        ({"tokens": torch.full((2, 3), MASK)}, ValueError, r"tokens\[0\] is the mask token 99"),
        ({"canvas": torch.zeros(6, 2).long().T}, ValueError, "canvas has strides"),
        ({"blocks": torch.tensor([1, 3])}, ValueError, r"blocks\[1\] is 3"),
        ({"eos_token_ids": list(range(17))}, ValueError, "eos_token_ids has 17 ids, expected at most 16"),
    ],
)
def test_bad_arguments_are_named(device: str, changes: dict, error: type[Exception], message: str) -> None:
    state = DecodeState.start(2, 6, block_length=3, device=device)
    zeros = torch.zeros(2, 3, device=device)
    arguments = {
        "canvas": torch.full((2, 6), MASK, device=device), "reveal_step": state.reveal_step,
        "forwards": state.forwards, "blocks": state.blocks, "done": state.done, "positions": zeros.long(),
        "tokens": zeros.long(), "score": zeros, "accept": zeros.bool(), "block_length": 3, "mask_token_id": MASK,
        **on(device, changes),
    }  # fmt: skip
    with pytest.raises(error, match=message):
        commit_reveal(**arguments)
