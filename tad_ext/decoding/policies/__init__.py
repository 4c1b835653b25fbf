"""Unmasking policies: which of the eligible masked positions are revealed by this forward.

A policy is any callable `policy(statistics, state) -> (score, accept)` on (B, W) tensors, one row per sequence and one
entry per eligible position (`state.eligible` is False on padding):

* accept, bool: reveal these positions. Entries that are not eligible, or whose statistics are not valid, are ignored.
* score, floating point, higher is better: where a block must make progress and nothing in it was accepted, its
  best-scored position is revealed; ties go to the lowest position.

A plain function is a policy. This one reveals every position whose two best tokens are clearly apart:

    def margin_above_half(statistics, state):
        return statistics.margin, statistics.margin > 0.5

Policies that need more have:

* `prepare(logits, state) -> logits`, a method that is shown the logits of a forward before their statistics are taken:
  (B * W, V), row b * W + w for entry [b, w], padding included. What it returns counts in their place: the same, or
  others of that shape. It must not write to them.
* `state.memory` for the next forward: tensors by name, made by the policy at first use, with the first dimension B. A
  row's memory starts with zeros, also when another prompt takes the row, and moves with it. What is remembered per
  canvas column is found through `state.positions`, (B, W), -1 for padding.
* `sees`, an attribute that says what the policy is shown. "eligible": the positions it may reveal, masks of created
  blocks. "ahead": these, and the masks of the first block behind them that has any, which may be the next one created.
  "masks": all masks of the canvas. "canvas": every position, revealed ones included. "block": every position of the
  first block that is not finished, with what stands there in `state.tokens`. Entries that are `state.present` and not
  `state.eligible` are never revealed, but the model's head computes logits for them. With a cache, or where future
  blocks are hidden, those that the forward does not compute are padding.
* `revise(statistics, state) -> (tokens, open)`, a method that is asked after the reveals, for policies that see the
  "block": (B, W) int64, what each entry that had a token before is to hold, or for any `MASKED_AGAIN`; and (B,) bool,
  the rows whose block is not finished yet, though it may have no mask left. `state.tokens` is what stood there before.
  Blocks are decoded one by one then. With `softens = True` it gives a third: (B, W) float32, the share that each
  entry's token has in what the next forward sees there, if the block is still open; the rest is the mask's. 1 is the
  token as it is.
* `resize(statistics, state, canvas, lengths) -> (length, place, count)`, a method that is asked after the reveals, for
  policies that change how long the canvas is. Given are the canvas (B, G), `gen_length` columns of tokens, of which
  the first `lengths`, (B,), count, and `statistics.query_probabilities` of the ids that end a sequence. The answer is
  int64, (B,) each: `count` masks come in before column `place`, what stands there and behind moves, and the canvas has
  the first `length` columns of that, at most G, from then on. Where there are fewer, ends of sequence are put behind. A
  response that has ended is left alone. What is remembered per column does not move. An attribute `initial` says how
  many columns there are at first. A method `waits(state)`, asked before the reveals, names the rows, (B,) bool, in
  which this forward reveals nothing.
* `verifies = True`, for policies that see the "block": an entry that holds a token is predicted by a mask behind the
  canvas, which stands at its position and sees everything but that token (`tad_ext.models.base`, `shadow`). And
  `statistics.query_probabilities`, (B, W, 1), is what its token has there. Models of this package alone do it, those
  that attend in both directions and predict each token at its own position, without a cache or guidance.
* `state.seeds`, (B,), the rows' own seeds, for random numbers that do not depend on the batch.

A policy runs on the model's device at every step, so it should not wait for the host (no `.item()`, no `if tensor`, no
indexing by a mask). It must treat each row on its own: then results do not depend on which prompts share a batch.

The policies of this package are frozen dataclasses with a name, `NamedPolicy`. Each file of this folder is imported, so
a new policy is one new file. One whose choice is a rule of `tad_ext.ops.Selection` can be a `BySelection`, which a
kernel applies. By what they go:

by_selection.py   confidence, margin or entropy of each position: rules that a kernel knows
by_step.py        the number of the step
taking_back.py    confidence, and what was revealed may be masked again
canvas_length.py  confidence, on a canvas whose length follows the ends of sequence that are predicted
capped.py         confidence, up to a number of positions
delimiters.py     confidence, within a block that ends where the model is about to end a line
by_block.py       the same within the first unfinished block, for models with block-causal attention
neighbours.py     what stands beside a position
remembering.py    earlier forwards
learned.py        what a trained network says of the confidences of a block
early_commit.py   all positions together: everything is revealed once the model is sure enough
"""

import importlib
import pkgutil

from .base import MASKED_AGAIN, NamedPolicy, parse_policy, policies_by_name, text_form
from .by_selection import BySelection

__all__ = ["MASKED_AGAIN", "BySelection", "NamedPolicy", "parse_policy", "policies_by_name", "text_form"]

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
globals().update({policy.__name__: policy for policy in policies_by_name.values()})  # can be imported from here, too
