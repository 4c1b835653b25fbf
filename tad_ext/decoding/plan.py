"""What the host decides about a step before it runs: its sizes, and with a cache which columns it computes."""

from dataclasses import replace
from typing import Any

from tad_ext.data.ragged import to_device

from .batch import DecodingBatch, Plan
from .config import DecodeConfig
from .sequence import SequenceProgress


def plan_step(model: Any, batch: DecodingBatch, ahead: int = 0, most_recorded: int = 0) -> Plan:
    """The next step, or without a cache the one some steps `ahead`, in the sizes that it may need by then.

    A step of at most `most_recorded` columns, of all sequences together, is recorded, in sizes that are rounded up so
    that there are few. With a cache the sequences note the forwards that compute them as a whole.
    """
    config, sequences = batch.config, batch.sequences
    # 1. Sizes, by the largest sequence. A forward adds at most one block, but for policies that may create all at once.
    at_once = getattr(config.policy, "creates_all_blocks", False)
    added = config.gen_length if ahead and at_once else ahead
    further = [one.further_blocks for one in sequences]
    lengths = [
        _end_column(config, one, _visible_blocks(batch, one) + added + more)
        for one, more in zip(sequences, further, strict=True)
    ]
    padded = min(lengths) < max(lengths) or ((ahead > 0 or any(further)) and batch.hides_future)
    if batch.sees in ("eligible", "ahead"):
        most = ahead + (batch.sees == "ahead" and not batch.hides_future)
        entries = max(
            min(one.eligible + (most + more) * config.block_length, one.masks)
            for one, more in zip(sequences, further, strict=True)
        )
    else:
        entries = max(one.masks if batch.sees == "masks" else one.canvas_length for one in sequences)
        entries = config.block_length if batch.sees == "block" else entries
    plan = Plan(len(batch), max(lengths), padded, entries)
    # 2. The same rounded up.
    rows = min(1 << (plan.sequences - 1).bit_length(), len(batch.canvas))
    length = min(_multiple(plan.length, of=64), batch.input_ids.shape[1], model.config.max_position_embeddings)
    padded = padded or rows > plan.sequences or length > plan.length
    rounded = Plan(rows, length, padded, _multiple(entries, of=config.block_length), recorded=True)
    # 3. Windows, unless all columns of all sequences are computed.
    bounds, whole = _windows(model, batch)
    if not bounds:
        return rounded if rows * length <= most_recorded else plan
    window = max(last - first for first, last, *_ in bounds) + 1
    # Steps with windows and whole sequences are of many sizes, and frequent only where there are many sequences.
    if not whole and rows * _multiple(window, of=32) <= most_recorded:
        plan, window = rounded, _multiple(window, of=32)
    bounds += [(0, 0, 0, 0)] * (plan.sequences - len(bounds))  # idle sequences
    rows_to_refresh = to_device(whole, batch.device) if whole else None
    return replace(plan, window=window, bounds=to_device(bounds, batch.device), whole=rows_to_refresh)


def _windows(model: Any, batch: DecodingBatch) -> tuple[list[tuple[int, int, int, int]], list[int]]:
    """`Plan.bounds` by the cache scheme, and the sequences that are computed whole. No bounds: all are."""
    config, sequences = batch.config, batch.sequences
    if config.cache is None:
        return [], []
    windows = [config.cache.window(one, _visible_blocks(batch, one)) for one in sequences]
    narrower = getattr(config.cache, "columns", None)
    parts = [narrower and narrower(one, config.block_length) for one in sequences]
    whole = [index for index, window in enumerate(windows) if window is None]
    for index in whole:
        sequences[index].refreshed = sequences[index].forwards
    if len(whole) == len(windows):
        return [], whole
    bounds = []
    for one, window, part in zip(sequences, windows, parts, strict=True):
        # A sequence that is computed as a whole takes part with one column, whatever becomes of it.
        first, end = window or (0, 0)
        column = one.start + first * config.block_length
        before = column if getattr(config.cache, "starts_at_block", False) else model.prediction_columns(column)
        last = max(_end_column(config, one, end) - 1, column)
        if part is not None:  # no other column may change, not even the one that predicts the part's first
            before, last = one.start + part[0], one.start + part[1] - 1
        visible = window or (0, _visible_blocks(batch, one))
        bounds.append((before, last, *visible))
    return bounds, whole


def _visible_blocks(batch: DecodingBatch, sequence: SequenceProgress) -> int:
    """Blocks of the canvas that are part of the sequence's forward."""
    return sequence.created if batch.hides_future else -(-sequence.canvas_length // batch.config.block_length)


def _end_column(config: DecodeConfig, sequence: SequenceProgress, blocks: int) -> int:
    """The column of `input_ids` behind the first so many blocks of the sequence's canvas."""
    return sequence.start + min(blocks * config.block_length, sequence.canvas_length)


def _multiple(number: int, *, of: int) -> int:
    """The next multiple of a number, or the number itself."""
    return -(-number // of) * of
