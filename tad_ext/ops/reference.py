"""The plain-PyTorch meaning of every operator: oracle in the tests, baseline in bench/, fallback without a compiler.

Each function has the name, the arguments and the docstring of the public one, behind which it stands where
TAD_EXT_REFERENCE is set. It is differentiable through autograd, checks nothing but devices, makes several full-size
temporaries, and computes in float32 (float64 for float64 logits).
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from . import log_softmax, loss, reveal, statistics
from .checks import Call
from .philox import gumbel_noise
from .selection import select
from .types import Count, TADLoss, TokenStatistics, compute_dtype

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _meaning_of(
    public: Callable[Parameters, Result],
) -> Callable[[Callable[[Call], Result]], Callable[Parameters, Result]]:
    """Turns a function of a call into one that is called as the public one is."""
    signature = inspect.signature(public)

    def decide(function: Callable[[Call], Result]) -> Callable[Parameters, Result]:
        @wraps(public)
        def meaning(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
            call = Call.bound(signature, *arguments, **options)
            call.check_devices()
            return function(call)

        return meaning

    return decide


@_meaning_of(loss.fused_tad_loss)
def fused_tad_loss(call: Call) -> TADLoss:
    """`recompute_gradient` means nothing here: autograd keeps what it needs."""
    return _partitioned_loss(call, call.student_logits, call.teacher_logits)


def _partitioned_loss(call: Call, student_logits: Tensor, teacher_logits: Tensor | None) -> TADLoss:
    """Cross-entropy on near entries plus KL(teacher || student) on distant ones."""
    student = student_logits.reshape(-1, student_logits.shape[-1])
    student = student.to(compute_dtype(student))
    labels, steps, temperature = call.labels.reshape(-1), call.steps_to_reveal.reshape(-1), call.temperature
    entries = torch.arange(labels.numel(), device=labels.device)
    student_rows = getattr(call, "student_rows", None)
    student_rows = entries if student_rows is None else student_rows.reshape(-1)
    teacher_rows = entries if call.teacher_rows is None else call.teacher_rows.reshape(-1)
    weight = torch.ones_like(steps, dtype=student.dtype)
    if call.row_weight is not None:
        weight = call.row_weight.detach().reshape(-1).to(student.dtype)
    sides = [(steps >= 1) & (steps <= call.delta), steps > call.delta]
    near_count, distant_count = (side.sum() for side in sides)

    def cross_entropy(entries: Tensor) -> Tensor:
        log_probabilities = student[student_rows[entries]].log_softmax(-1)
        return -log_probabilities.gather(-1, labels[entries, None])[:, 0]

    def divergence(entries: Tensor) -> Tensor:
        if teacher_logits is None:
            return student.new_zeros(len(entries))
        teacher = teacher_logits.detach().reshape(-1, teacher_logits.shape[-1])[teacher_rows[entries]]
        log_q = (student[student_rows[entries]] / temperature).log_softmax(-1)
        log_p = (teacher.to(student.dtype) / temperature).log_softmax(-1)
        p = log_p.exp()
        found = torch.where(p > 0, p * (log_p - log_q), 0).sum(-1)
        # A teacher row that is NaN must not look like a row without probability.
        return torch.where(p.isnan().any(-1), torch.nan, found)

    # What is switched off adds nothing, even where it is infinite or NaN.
    near, distant = ((side & (weight != 0)).nonzero()[:, 0] for side in sides)
    ce = (weight[near] * cross_entropy(near)).sum() / _denominator(call.near_count, near_count)
    kl = (weight[distant] * divergence(distant)).sum() / _denominator(call.distant_count, distant_count)
    kl = kl * temperature**2
    loss = sum((w * part for w, part in ((call.ce_weight, ce), (call.kl_weight, kl)) if w != 0), student[:0].sum())
    of_entries = torch.zeros(labels.numel(), dtype=torch.float64, device=labels.device)
    with torch.no_grad():
        for side, own in zip(sides, (cross_entropy, divergence), strict=True):
            of_entries[side] = own(side.nonzero()[:, 0]).double()
    return TADLoss(loss, ce.detach(), kl.detach(), near_count, distant_count, of_entries.view(call.labels.shape))


@_meaning_of(loss.fused_linear_tad_loss)
def fused_linear_tad_loss(call: Call) -> TADLoss:
    """The logits exist as a whole: `chunk_rows` means nothing here."""
    hidden, teacher_hidden, head = call.student_hidden, call.teacher_hidden, call.lm_head_weight
    steps = call.steps_to_reveal.reshape(-1)
    weight = head if isinstance(head, Tensor) else head.get_parameter("weight")
    teacher_logits = None if teacher_hidden is None else teacher_hidden.detach() @ weight.detach().T
    # Entries without weight have a product of their own, a constant: in its gradient 0 times NaN would be NaN.
    adds = (steps >= 1) & (torch.where(steps <= call.delta, call.ce_weight, call.kl_weight) != 0)
    if call.row_weight is not None:
        adds &= call.row_weight.reshape(-1) != 0
    logits = torch.cat([hidden[adds] @ weight.T, hidden[~adds].detach() @ weight.detach().T])
    in_order = (~adds).to(torch.int8).argsort(stable=True).argsort()
    return _partitioned_loss(call, logits[in_order], teacher_logits)


@_meaning_of(log_softmax.masked_log_softmax)
def masked_log_softmax(call: Call) -> Tensor:
    """`log_softmax(logits[mask] / temperature)`, (N, V)."""
    logits, rows = call.logits, call.rows
    flat = logits.reshape(-1, logits.shape[-1])
    if call.mask is not None:
        rows = call.mask.reshape(-1).nonzero()[:, 0]
    chosen = flat if rows is None else flat[rows]
    scaled = chosen.to(compute_dtype(logits)) / call.temperature
    return scaled.log_softmax(-1).to(call.dtype or logits.dtype)


@_meaning_of(statistics.token_statistics)
def token_statistics(call: Call) -> TokenStatistics:
    """Token, confidence, runner-up, margin, entropy and logsumexp of each row."""
    logits, rows, temperature, query_tokens = call.logits.detach(), call.rows, call.temperature, call.query_tokens
    vocabulary = logits.shape[-1]
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
    if call.suppress_tokens is not None:
        suppressed[call.suppress_tokens] = True
    first, second = _top2(allowed, suppressed)
    token = first
    if temperature > 0:
        noise = gumbel_noise(call.seeds.expand(shape), call.offsets.expand(shape), vocabulary)
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


@_meaning_of(statistics.truncate_logits)
def truncate_logits(call: Call) -> Tensor:
    """The most probable tokens of each row."""
    logits, top_k, top_p = call.logits.detach(), call.top_k, call.top_p
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k, dim=-1).values[..., -1:], -torch.inf)
    if top_p < 1:
        ordered = logits.sort(dim=-1, descending=True).values
        p = (ordered.to(compute_dtype(logits)) / call.temperature).softmax(-1)
        before = p.cumsum(-1) - p  # what those above it have together
        least = ordered.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
        logits = logits.masked_fill(logits < least, -torch.inf)
    return logits


@_meaning_of(reveal.commit_reveal)
def commit_reveal(call: Call) -> Tensor:
    """Writes one forward's chosen tokens and advances the block schedule."""
    canvas, blocks, block_length, mask_token_id = call.canvas, call.blocks, call.block_length, call.mask_token_id
    reveal_step, forwards, done, positions = call.reveal_step, call.forwards, call.done, call.positions
    tokens, score, accept, forced_progress = call.tokens, call.score, call.accept, call.forced_progress
    revealed = torch.zeros_like(accept)
    gen_length = canvas.shape[1]
    top_tokens = tokens if call.top_tokens is None else call.top_tokens

    def share(row: int, block: int) -> float:
        tokens_of_block = canvas[row, block * block_length : (block + 1) * block_length]
        return int((tokens_of_block != mask_token_id).sum()) / block_length

    def best(row: int, entries: list[int]) -> int:
        scores = score[row, entries].nan_to_num(nan=-torch.inf, neginf=-torch.inf)
        return entries[int((scores == scores.max()).nonzero()[0, 0])]

    for row in (~done).nonzero()[:, 0].tolist():
        step = int(forwards[row]) + 1
        forwards[row] = step
        created = int(blocks[row])
        fully_active = [b == 0 or share(row, b - 1) >= call.decoded_token_threshold for b in range(created)]
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
        ends = [eligible[entry] for entry, token in chosen.items() if int(token) in call.eos_token_ids]
        if ends:
            first = min(ends)
            canvas[row, first + 1 :] = canvas[row, first]
            reveal_step[row, first + 1 :] = step
        newest = share(row, created - 1)
        if (newest >= call.block_add_threshold or newest == 1.0) and created * block_length < gen_length:
            blocks[row] = created + 1
        masks = (canvas[row] == mask_token_id).nonzero()
        if len(masks):
            blocks[row] = max(int(blocks[row]), int(masks[0, 0]) // block_length + 1)
        done[row] = len(masks) == 0
    return revealed


@_meaning_of(reveal.select_reveal)
def select_reveal(call: Call) -> tuple[TokenStatistics, Tensor]:
    """Statistics, selection and reveals of one forward."""
    logits, state = call.logits, call.state
    entries = torch.arange(state.positions.numel(), device=logits.device).view_as(state.positions)
    statistics = token_statistics(
        logits.reshape(-1, logits.shape[-1]),
        rows=entries.masked_fill(~state.eligible, -1),
        temperature=call.temperature,
        suppress_tokens=call.suppress_tokens,
        seeds=call.seeds,
        offsets=call.offsets,
    )
    answer = select(statistics, state, call.selection)
    revealed = commit_reveal(
        call.canvas, *state.tensors, **state.to_commit(statistics, *answer), mask_token_id=call.mask_token_id
    )
    return statistics, revealed


@_meaning_of(reveal.eligible_positions)
def eligible_positions(call: Call) -> Tensor:
    """Eligible positions and counts of every canvas."""
    canvas, blocks, positions, block_length = call.canvas, call.blocks, call.positions, call.block_length
    columns = torch.arange(canvas.shape[1], device=canvas.device)
    masked = canvas == call.mask_token_id
    eligible = masked & (columns < (blocks * block_length)[:, None])
    in_order = torch.where(eligible, columns, canvas.shape[1]).sort(dim=1).values
    positions.copy_(in_order.masked_fill(in_order == canvas.shape[1], -1))
    unfinished = masked.unflatten(1, (-1, block_length)).any(dim=2).int().argmax(dim=1)
    return torch.stack([unfinished, eligible.sum(dim=1), masked.sum(dim=1)], dim=1)


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
