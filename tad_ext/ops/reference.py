"""The plain-PyTorch meaning of every operator: oracle in the tests, baseline in bench/, fallback without a compiler.

Same names and arguments as the public functions, behind which they stand where TAD_EXT_REFERENCE is set;
differentiable through autograd, no argument checks but that of devices, several full-size temporaries. Computes in
float32 (float64 for float64 logits).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from .checks import check_devices
from .philox import gumbel_noise
from .selection import Selection, select
from .types import Count, DecodeState, ForcedProgress, TADLoss, TokenStatistics

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _on_one_device(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """The function behind the check of its tensors' devices."""
    names = list(inspect.signature(function).parameters)

    @wraps(function)
    def checked(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
        check_devices({**dict(zip(names, arguments)), **options})
        return function(*arguments, **options)

    return checked


@_on_one_device
def fused_tad_loss(
    student_logits: Tensor,
    teacher_logits: Tensor | None,
    labels: Tensor,
    steps_to_reveal: Tensor,
    *,
    delta: int,
    ce_weight: float = 1.0,
    kl_weight: float = 1.0,
    temperature: float = 1.0,
    row_weight: Tensor | None = None,
    student_rows: Tensor | None = None,
    teacher_rows: Tensor | None = None,
    near_count: Count = None,
    distant_count: Count = None,
    recompute_gradient: bool | None = None,
) -> TADLoss:
    """Cross-entropy on near entries plus KL(teacher || student) on distant ones; see `tad_ext.fused_tad_loss`.

    `recompute_gradient` means nothing here: autograd keeps what it needs.
    """
    student = student_logits.reshape(-1, student_logits.shape[-1])
    student = student.to(compute_dtype(student))
    labels, steps = labels.reshape(-1), steps_to_reveal.reshape(-1)
    entries = torch.arange(labels.numel(), device=labels.device)
    student_rows = entries if student_rows is None else student_rows.reshape(-1)
    teacher_rows = entries if teacher_rows is None else teacher_rows.reshape(-1)
    weight = torch.ones_like(steps, dtype=student.dtype)
    if row_weight is not None:
        weight = row_weight.detach().reshape(-1).to(student.dtype)
    sides = [(steps >= 1) & (steps <= delta), steps > delta]
    counts = [side.sum() for side in sides]
    # What is switched off adds nothing, even where it is infinite or NaN.
    near, distant = ((side & (weight != 0)).nonzero()[:, 0] for side in sides)

    log_probabilities = student[student_rows[near]].log_softmax(-1)
    ce_of_entry = -log_probabilities.gather(-1, labels[near, None])[:, 0]
    ce = (weight[near] * ce_of_entry).sum() / _denominator(near_count, counts[0])
    if teacher_logits is None:
        kl = ce.new_zeros(())
    else:
        teacher = teacher_logits.detach().reshape(-1, teacher_logits.shape[-1])[teacher_rows[distant]]
        log_q = (student[student_rows[distant]] / temperature).log_softmax(-1)
        log_p = (teacher.to(student.dtype) / temperature).log_softmax(-1)
        p = log_p.exp()
        kl_of_entry = torch.where(p > 0, p * (log_p - log_q), 0).sum(-1) * temperature**2
        # A teacher row that is NaN must not look like a row without probability.
        kl_of_entry = torch.where(p.isnan().any(-1), torch.nan, kl_of_entry)
        kl = (weight[distant] * kl_of_entry).sum() / _denominator(distant_count, counts[1])
    loss = sum((w * part for w, part in ((ce_weight, ce), (kl_weight, kl)) if w != 0), student[:0].sum())
    return TADLoss(loss, ce.detach(), kl.detach(), *counts)


@_on_one_device
def fused_linear_tad_loss(
    student_hidden: Tensor,
    teacher_hidden: Tensor | None,
    lm_head_weight: Tensor | torch.nn.Module,
    labels: Tensor,
    steps_to_reveal: Tensor,
    *,
    delta: int,
    ce_weight: float = 1.0,
    kl_weight: float = 1.0,
    row_weight: Tensor | None = None,
    chunk_rows: int | None = None,
    **options: Any,
) -> TADLoss:
    """`fused_tad_loss`, whose `options` it takes, of `hidden @ lm_head_weight.T`.

    The logits exist as a whole: `chunk_rows` means nothing here.
    """
    weight = lm_head_weight if isinstance(lm_head_weight, Tensor) else lm_head_weight.get_parameter("weight")
    teacher_logits = None if teacher_hidden is None else teacher_hidden.detach() @ weight.detach().T
    # Entries without weight have a product of their own, a constant: in its gradient 0 times NaN would be NaN.
    side_weight = torch.where(steps_to_reveal <= delta, ce_weight, kl_weight)
    adds = (steps_to_reveal >= 1) & (side_weight != 0)
    if row_weight is not None:
        adds &= row_weight.reshape(-1) != 0
    logits = torch.cat([student_hidden[adds] @ weight.T, student_hidden[~adds].detach() @ weight.detach().T])
    in_order = (~adds).to(torch.int8).argsort(stable=True).argsort()
    return fused_tad_loss(
        logits[in_order],
        teacher_logits,
        labels,
        steps_to_reveal,
        delta=delta,
        ce_weight=ce_weight,
        kl_weight=kl_weight,
        row_weight=row_weight,
        **options,
    )


@_on_one_device
def masked_log_softmax(
    logits: Tensor,
    mask: Tensor | None = None,
    *,
    rows: Tensor | None = None,
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """`log_softmax(logits[mask] / temperature)`, (N, V); see `tad_ext.masked_log_softmax`."""
    flat = logits.reshape(-1, logits.shape[-1])
    if mask is not None:
        rows = mask.reshape(-1).nonzero()[:, 0]
    chosen = flat if rows is None else flat[rows]
    scaled = chosen.to(compute_dtype(logits)) / temperature
    return scaled.log_softmax(-1).to(dtype or logits.dtype)


@_on_one_device
def token_statistics(
    logits: Tensor,
    *,
    rows: Tensor | None = None,
    temperature: float = 0.0,
    suppress_tokens: Tensor | None = None,
    query_tokens: Tensor | None = None,
    seeds: Tensor | None = None,
    offsets: Tensor | None = None,
) -> TokenStatistics:
    """Token, confidence, runner-up, margin, entropy and logsumexp of each row; see `tad_ext.token_statistics`."""
    vocabulary = logits.shape[-1]
    logits = logits.detach()
    shape = logits.shape[:-1] if rows is None else rows.shape
    flat = logits.reshape(-1, vocabulary)
    padding = torch.zeros(shape, dtype=torch.bool, device=logits.device) if rows is None else rows < 0
    if rows is not None:
        flat = flat[rows.reshape(-1).clamp(min=0)]
    x = flat.to(compute_dtype(logits)).reshape(*shape, vocabulary)

    valid = ~(x.isnan() | (x == torch.inf)).any(-1) & ~padding
    empty = (x == -torch.inf).all(-1)  # nothing is possible: confidence 0 and the largest uncertainty
    # Sums of exp(x - max) and of exp(x - max) * (max - x) over all tokens but the largest.
    peak = x.max(-1, keepdim=True)
    below = peak.values - x
    e = (-below).exp().scatter(-1, peak.indices, 0)
    others = e.sum(-1)
    weighted = torch.where(e > 0, e * below, 0).sum(-1)
    entropy = others.log1p() + weighted / (1 + others)

    allowed = x.nan_to_num(nan=-torch.inf, posinf=torch.finfo(x.dtype).max, neginf=-torch.inf)
    suppressed = torch.zeros(vocabulary, dtype=torch.bool, device=x.device)
    if suppress_tokens is not None:
        suppressed[suppress_tokens] = True
    first, second = _top2(allowed, suppressed)
    token = first
    if temperature > 0:
        assert seeds is not None
        assert offsets is not None
        noise = gumbel_noise(seeds.expand(shape), offsets.expand(shape), vocabulary)
        keys = (allowed.double() / temperature + noise).masked_fill(suppressed, -torch.inf)
        token = torch.where((keys == -torch.inf).all(-1), first, keys.argmax(-1))

    def logit(index: Tensor) -> Tensor:
        return torch.where(index < 0, -torch.inf, x.gather(-1, index.clamp(min=0)[..., None])[..., 0])

    def probability(index: Tensor) -> Tensor:
        return (logit(index) - peak.values[..., 0]).exp() / (1 + others)

    distance = peak.values[..., 0] - logit(token)
    odds_against = torch.where(distance == 0, others, (1 + others) * distance.exp() - 1)
    nothing = ~valid | empty
    queries = x.new_zeros(*shape, 0) if query_tokens is None else x.gather(-1, query_tokens.expand(*shape, -1))
    return TokenStatistics(
        token=torch.where(padding, 0, token),
        confidence=torch.where(nothing, 0, probability(token)).float(),
        log_odds=torch.where(nothing, -torch.inf, -odds_against.log()).float(),
        top_token=torch.where(padding, 0, first),
        second_token=torch.where(padding, -1, second),
        margin=torch.where(nothing, 0, probability(first) - probability(second)).float(),
        gap=torch.where(nothing, 0, logit(first) - logit(second)).nan_to_num(nan=0.0, posinf=torch.inf).float(),
        entropy=torch.where(nothing, torch.inf, entropy).float(),
        logsumexp=torch.where(padding, -torch.inf, torch.where(valid, x.logsumexp(-1), torch.nan)).float(),
        valid=valid,
        query_logits=torch.where(padding[..., None], 0, queries).to(logits.dtype),
    )


@_on_one_device
def truncate_logits(logits: Tensor, *, temperature: float, top_k: int | None = None, top_p: float = 1.0) -> Tensor:
    """The most probable tokens of each row; see `tad_ext.ops.truncate_logits`."""
    logits = logits.detach()
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[..., -1:], -torch.inf)
    if top_p < 1:
        ordered = logits.sort(dim=-1, descending=True).values
        p = (ordered.to(compute_dtype(logits)) / temperature).softmax(-1)
        before = p.cumsum(-1) - p  # what those above it have together
        least = ordered.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits


@_on_one_device
def commit_reveal(
    canvas: Tensor,
    reveal_step: Tensor,
    forwards: Tensor,
    blocks: Tensor,
    done: Tensor,
    positions: Tensor,
    tokens: Tensor,
    score: Tensor,
    accept: Tensor,
    *,
    top_tokens: Tensor | None = None,
    block_length: int,
    block_add_threshold: float = 1.0,
    decoded_token_threshold: float = 1.0,
    forced_progress: ForcedProgress = "row",
    mask_token_id: int,
    eos_token_ids: Sequence[int] = (),
) -> Tensor:
    """Write one forward's chosen tokens and advance the block schedule; see `tad_ext.commit_reveal`."""
    revealed = torch.zeros_like(accept)
    gen_length = canvas.shape[1]
    top_tokens = tokens if top_tokens is None else top_tokens

    def share(row: int, block: int) -> float:
        """Revealed share of a block of a canvas."""
        tokens_of_block = canvas[row, block * block_length : (block + 1) * block_length]
        return int((tokens_of_block != mask_token_id).sum()) / block_length

    def best(row: int, entries: list[int]) -> int:
        """The best-scored of some entries of a row."""
        scores = score[row, entries].nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        return entries[int((scores == scores.max()).nonzero()[0, 0])]

    for row in (~done).nonzero()[:, 0].tolist():
        step = int(forwards[row]) + 1
        forwards[row] = step
        created = int(blocks[row])
        fully_active = [b == 0 or share(row, b - 1) >= decoded_token_threshold for b in range(created)]
        eligible = {
            entry: position
            for entry, position in enumerate(positions[row].tolist())
            if 0 <= position < created * block_length and canvas[row, position] == mask_token_id
        }
        chosen = {entry: tokens[row, entry] for entry in eligible if accept[row, entry]}
        if forced_progress == "row" and eligible and not chosen:
            chosen = {entry: tokens[row, entry] for entry in [best(row, list(eligible))]}
        for block in range(created):
            members = [entry for entry, position in eligible.items() if position // block_length == block]
            if not members or not fully_active[block]:
                continue
            if not any(entry in chosen for entry in members):
                entry = best(row, members)
                chosen[entry] = (top_tokens if forced_progress == "row" else tokens)[row, entry]
            if forced_progress != "blocks":
                break
        for entry, token in chosen.items():
            canvas[row, eligible[entry]] = token
            reveal_step[row, eligible[entry]] = step
            revealed[row, entry] = True
        ends = [eligible[entry] for entry, token in chosen.items() if int(token) in eos_token_ids]
        if ends:
            first = min(ends)
            canvas[row, first + 1 :] = canvas[row, first]
            reveal_step[row, first + 1 :] = step
        newest = share(row, created - 1)
        if (newest >= block_add_threshold or newest == 1.0) and created * block_length < gen_length:
            blocks[row] = created + 1
        masks = (canvas[row] == mask_token_id).nonzero()
        if len(masks):
            blocks[row] = max(int(blocks[row]), int(masks[0, 0]) // block_length + 1)
        done[row] = len(masks) == 0
    return revealed


@_on_one_device
def select_reveal(
    canvas: Tensor,
    logits: Tensor,
    state: DecodeState,
    selection: Selection,
    *,
    mask_token_id: int,
    suppress_tokens: Tensor,
    temperature: float = 0.0,
    seeds: Tensor | None = None,
    offsets: Tensor | None = None,
) -> tuple[TokenStatistics, Tensor]:
    """Statistics, selection and reveals of one forward; see `tad_ext.ops.select_reveal`."""
    entries = torch.arange(state.positions.numel(), device=logits.device).view_as(state.positions)
    statistics = token_statistics(
        logits.reshape(-1, logits.shape[-1]),
        rows=entries.masked_fill(~state.eligible, -1),
        temperature=temperature,
        suppress_tokens=suppress_tokens,
        seeds=seeds,
        offsets=offsets,
    )
    score, accept = select(statistics, state, selection)
    revealed = commit_reveal(
        canvas,
        *state.tensors,
        statistics.token,
        score.masked_fill(~statistics.valid, -torch.inf),
        accept,
        top_tokens=statistics.top_token,
        mask_token_id=mask_token_id,
        **state.schedule,
    )
    return statistics, revealed


@_on_one_device
def eligible_positions(
    canvas: Tensor, blocks: Tensor, positions: Tensor, *, block_length: int, mask_token_id: int
) -> Tensor:
    """Eligible positions and counts of every canvas; see `tad_ext.ops.eligible_positions`."""
    columns = torch.arange(canvas.shape[1], device=canvas.device)
    masked = canvas == mask_token_id
    eligible = masked & (columns < (blocks * block_length)[:, None])
    in_order = torch.where(eligible, columns, canvas.shape[1]).sort(dim=1).values
    positions.copy_(in_order.masked_fill(in_order == canvas.shape[1], -1))
    unfinished = masked.unflatten(1, (-1, block_length)).any(dim=2).int().argmax(dim=1)
    return torch.stack([unfinished, eligible.sum(dim=1), masked.sum(dim=1)], dim=1)


def compute_dtype(logits: Tensor) -> torch.dtype:
    """That of sums and results: float64 for float64 logits, otherwise float32."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def _denominator(given: Count, own: Tensor) -> Tensor:
    """A given denominator or this call's own count; 0 counts as 1."""
    count = own if given is None else torch.as_tensor(given, device=own.device).detach()
    return torch.where(count > 0, count, 1)


def _top2(x: Tensor, suppressed: Tensor) -> tuple[Tensor, Tensor]:
    """The two best allowed indices, ties to the lowest index; where -inf is all there is, the lowest allowed ones."""
    order = torch.sort(x.masked_fill(suppressed, -torch.inf), dim=-1, descending=True, stable=True).indices
    order = order.gather(-1, suppressed[order].to(torch.int8).sort(dim=-1, stable=True).indices)
    first = order[..., 0]
    if int((~suppressed).sum()) < 2:
        return first, torch.full_like(first, -1)
    return first, order[..., 1]
