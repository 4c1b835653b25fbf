"""One step on the device: forward, statistics of what the policy sees, policy, reveal.

Nothing here looks at a value, and the tensors that a step reads and writes stay where they are, so that it can be
recorded once and replayed (`tad_ext.decoding.cuda_graphs`).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tad_ext.ops import (
    DecodeState,
    TokenStatistics,
    pack_offsets,
    select_reveal,
    token_statistics,
    truncate_logits,
    unmask_step,
)

from .batch import DecodingBatch, Plan
from .policies.base import MASKED_AGAIN, verifies
from .policies.by_selection import selection_of
from .policies.checking import checked
from .stopping import stop_at_ends


class Step:
    """One forward and its reveals, in place on the tensors of `batch`."""

    def __init__(self, model: Any, batch: DecodingBatch) -> None:
        self.model, self.batch, self.config = model, batch, batch.config
        self.suppressed = torch.tensor(batch.tokens.suppressed, device=batch.device)
        self.ends = torch.tensor(batch.tokens.end, dtype=torch.int64, device=batch.device)
        # Whether all tokens of the vocabulary may be sampled, so that one read of the logits does it.
        self.plain = self.config.temperature == 0 or (self.config.top_k is None and self.config.top_p == 1)
        self.policy = checked(self.config.policy)
        self.prepare: Any = getattr(self.policy, "prepare", None)
        self.revise: Any = getattr(self.policy, "revise", None)
        self.resize: Any = getattr(self.policy, "resize", None)
        self.waits: Any = getattr(self.policy, "waits", None)
        self.verifies = verifies(self.config.policy)
        by_kernel = self.plain and self.prepare is None and self.resize is None and not self.verifies
        self.selection = selection_of(self.config.policy) if by_kernel else None
        # Policies that change the canvas's length go by the probabilities of ends.
        self.queries = None if self.resize is None else self.ends

    def __call__(self, plan: Plan) -> Tensor:
        """(B, 6) int64, or up to (B, 10), for the host to read: the arguments of `SequenceProgress.advance`."""
        return self.run(plan)[0]

    def run(self, plan: Plan) -> tuple[Tensor, TokenStatistics, Tensor]:
        """The same; and the statistics that the policy was shown, and of which positions, (B, W) each."""
        batch, mask = self.batch, self.batch.tokens.mask
        state, canvas = batch.view(plan), batch.canvas[: plan.sequences]
        # 1. Logits, without end-of-sequence tokens before `min_length`.
        logits = self._logits(plan, state)
        if self.prepare is not None:
            logits = self.prepare(logits, state)
        if self.config.min_length and len(self.ends):
            head = (batch.prompts - batch.starts)[: plan.sequences, None]
            early = (state.positions < head + self.config.min_length).flatten()[:, None]
            logits = logits.index_copy(1, self.ends, logits[:, self.ends].masked_fill(early, -torch.inf))
        # 2. Reveals, by a kernel where one knows the policy's rule; changes of tokens; ends.
        done = None if self.revise is None else state.done.clone()
        if self.selection is not None:
            options = self._sampling(state)
            statistics, _ = select_reveal(canvas, logits, state, self.selection, mask_token_id=mask, **options)
        else:
            statistics = self._statistics(logits, state)
            unmask_step(canvas, statistics, self._without_waiting(state), self.policy, mask_token_id=mask)
        open = None if done is None else self._revise(canvas, statistics, state, done)
        if self.config.stop_at_eos and (open is not None or self.config.stop_when != "revealed"):
            blocks = open is not None or self.config.stop_when == "block"
            may_change = None if open is None else batch.columns_of_open(open)
            stop_at_ends(canvas, state, self.ends, mask, blocks=blocks, may_change=may_change)
        lengths = None if self.resize is None else self._resize(canvas, statistics, state)
        # 3. What the next step starts from, and what the host is told.
        batch.keep_memory(state)
        batch.input_ids[: plan.sequences].scatter_(1, batch.columns[: plan.sequences], canvas)
        broken = (state.present & ~statistics.valid).any(dim=1)
        report = [broken.long(), state.blocks, *batch.go_on(plan.sequences, open).unbind(dim=1)]
        report.append(batch.positions[: plan.sequences, 0])
        if open is not None:
            report.append(open.long())
        if lengths is not None:  # neither open nor with further canvases
            report += [*[torch.zeros_like(lengths)] * 3, lengths]
        return torch.stack(report, dim=1), statistics, state.positions  # all of one dtype: one launch

    def _revise(self, canvas: Tensor, statistics: TokenStatistics, state: DecodeState, done: Tensor) -> Tensor:
        """Changes tokens as the policy says, but of sequences that were done; (B,) bool, those whose block is open."""
        tokens, open, *shares = self.revise(statistics, state)
        back = tokens == MASKED_AGAIN
        changes = state.present & (~state.eligible | back) & ~done[:, None] & (tokens != state.tokens)
        _put(canvas, state.positions, tokens.masked_fill(back, self.batch.tokens.mask), where=changes)
        _put(state.reveal_step, state.positions, state.forwards[:, None].masked_fill(back, 0), where=changes)
        open = (open | (changes & back).any(dim=-1)) & ~done
        if self.batch.shares is not None:
            seen, columns = self.batch.shares[: len(open)], self.batch.starts[: len(open), None] + state.positions
            seen.fill_(1)
            _put(seen, columns, *shares, where=state.present & open[:, None])
        self.batch.hold(open)
        return open

    def _without_waiting(self, state: DecodeState) -> DecodeState:
        """The state, without the entries of rows that are to reveal nothing."""
        if self.waits is None:
            return state
        waits = self.waits(state)[:, None]
        among = None if state.among is None else state.among & ~waits
        return replace(state, positions=state.positions.masked_fill(waits, -1), among=among)

    def _resize(self, canvas: Tensor, statistics: TokenStatistics, state: DecodeState) -> Tensor:
        """Gives canvases the lengths that the policy says, but of responses that have ended; (B,) int64, the lengths.

        A canvas that has no mask left goes on where it gains some.
        """
        batch, now = self.batch, self.batch.lengths(len(canvas))
        ended = state.done & (torch.isin(canvas, self.ends) & (state.reveal_step > 0)).any(dim=1)
        ended = ended if self.config.stop_at_eos else torch.zeros_like(ended)
        length, place, count = self.resize(statistics, state, canvas, now)
        length, count = length.where(~ended, now), count.where(~ended, 0)
        batch.resize(length, place, count)
        state.done.copy_((canvas != batch.tokens.mask).all(dim=1))
        return length

    def _logits(self, plan: Plan, state: DecodeState) -> Tensor:
        """(B * W, V): row b * W + w belongs to entry `state.positions[b, w]`."""
        batch, config, rows = self.batch, self.config, slice(plan.sequences)
        ids, starts = batch.input_ids[rows, : plan.length], batch.starts[rows]
        columns, length, shadow = starts[:, None] + state.positions, plan.length, {}
        if self.verifies:  # what holds a token is predicted by the mask behind the row that stands for it
            behind = length + torch.arange(plan.width, device=batch.device)
            shadow = {"shadow": torch.where(state.present, columns, -1)}
            columns, length = torch.where(state.eligible, columns, behind), length + plan.width
        first = torch.arange(0, plan.sequences * length, length, device=batch.device)
        positions = torch.where(state.present, first[:, None] + columns, -1)
        lengths = batch.ends[rows] if plan.padded else None  # columns of each sequence that it is to see
        if lengths is not None and batch.hides_future:
            lengths = torch.minimum(starts + state.blocks * config.block_length, lengths)
        seen = {"lengths": lengths, **shadow, **self._blocks(plan, starts)}
        if batch.shares is not None:
            seen["shares"] = batch.shares[rows, : plan.length]
        if batch.cache is not None:
            return self.model.lm_head(self._hidden(plan, ids, seen, positions)).flatten(0, 1)
        logits = self.model(ids, positions=positions, **seen).logits.flatten(0, -2)
        if not config.guidance:
            return logits
        # Classifier-free guidance as LLaDA does it (arXiv 2502.09992): away from what it says without the prompt.
        prompt = torch.arange(plan.length, device=batch.device) < starts[:, None]
        hidden_prompt = ids.masked_fill(prompt, batch.tokens.mask)
        without = self.model(hidden_prompt, positions=positions, **seen).logits.flatten(0, -2)
        guided = without + (config.guidance + 1) * (logits - without)
        impossible = (logits == -torch.inf) | (without == -torch.inf)  # differences would be NaN
        return torch.where(impossible, logits, guided)

    def _blocks(self, plan: Plan, starts: Tensor) -> dict[str, Tensor]:
        """What the model is to see of each sequence where that is not its own affair: the prompt is block 0."""
        if not self.config.block_causal:
            return {}
        behind = torch.arange(plan.length, device=starts.device) - starts[:, None]
        return {"blocks": (behind // self.config.block_length + 1).clamp(min=0)}

    def _hidden(self, plan: Plan, ids: Tensor, seen: dict[str, Tensor | None], positions: Tensor) -> Tensor:
        """(B, W, D), the hidden rows of `positions`, (B, W).

        Where some sequences are computed as a whole and others in their windows, these are two forwards. The one of the
        windows is over all sequences, as no keys and values are gathered then; the other overwrites the whole ones'.
        """
        cache, columns, whole = self.batch.cache, None, plan.whole
        if plan.bounds is not None:
            first, last = plan.bounds[:, 0, None], plan.bounds[:, 1, None]
            columns = torch.minimum(first + torch.arange(plan.window, device=ids.device), last)
        hidden = self.model.hidden_rows(ids, positions=positions, cache=cache, columns=columns, **seen)
        if whole is not None:
            shift = (torch.arange(len(whole), device=ids.device) - whole) * ids.shape[1]
            chosen = positions[whole]
            chosen = torch.where(chosen < 0, -1, chosen + shift[:, None])
            own = {name: None if of_all is None else of_all[whole] for name, of_all in seen.items()}
            fresh = self.model.hidden_rows(ids[whole], positions=chosen, cache=cache, cache_rows=whole, **own)
            hidden.index_copy_(0, whole, fresh)
        return hidden

    def _sampling(self, state: DecodeState) -> dict[str, Any]:
        """Arguments of `token_statistics`, and of `select_reveal`."""
        if self.config.temperature == 0:
            return {"suppress_tokens": self.suppressed}
        # The noise depends on the row's seed, the forward that may reveal the token and its place in the canvas only.
        return {
            "suppress_tokens": self.suppressed,
            "temperature": self.config.temperature,
            "seeds": self.batch.seeds[: len(state.positions), None],
            "offsets": pack_offsets(state.forwards[:, None] + 1, state.positions),
        }

    def _statistics(self, logits: Tensor, state: DecodeState) -> TokenStatistics:
        """Statistics of the entries `state.positions`, (B, W) each, and their tokens."""
        entries = torch.arange(state.positions.numel(), device=logits.device).view_as(state.positions)
        rows = entries.masked_fill(~state.present, -1)
        queries = state.tokens[..., None] if self.verifies and state.tokens is not None else self.queries
        if self.plain:
            return token_statistics(logits, rows=rows, query_tokens=queries, **self._sampling(state))
        config = self.config
        statistics = token_statistics(logits, rows=rows, suppress_tokens=self.suppressed, query_tokens=queries)
        allowed = logits.index_fill(1, self.suppressed, -torch.inf)
        likely = truncate_logits(allowed, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p)
        token = token_statistics(likely, rows=rows, **self._sampling(state)).token
        chosen = logits.gather(1, token.view(-1, 1)).float().view(token.shape)
        confidence = (chosen - statistics.logsumexp).exp().masked_fill(~statistics.valid, 0)
        return statistics._replace(token=token, confidence=confidence.nan_to_num(nan=0.0))  # where nothing is possible


def _put(target: Tensor, places: Tensor, values: Tensor, *, where: Tensor) -> None:
    """target[b, places[b, w]] = values[b, w] where it is to be, (B, W) bool."""
    longer = torch.cat((target, target[:, :1]), dim=1)  # the last column takes what is put nowhere
    places = places.masked_fill(~where, target.shape[1])
    target.copy_(longer.scatter_(1, places, values.expand_as(places).to(target.dtype))[:, :-1])
