"""Published decoding rules written down a second time: plain, slow loops for one prompt, to compare `tad_ext` with.

A module is a method (`canvas` and `models` are what they stand on), written from its rule in words and from what its
published code does, without `tad_ext`'s own implementation in view. Nothing here is shared with `tad_ext.decoding`;
`models` alone asks the package's models for logits. A loop is

    loop(predict, prompt, *, ..., mask_id, eos_ids=(), suppress=()) -> Decoded

where `predict(ids)` gives (L, V) logits FOR each position of the (L,) token ids (Dream's shift is inside).

What the published code does in its own way, and these loops do not:

- Probabilities and entropies are float64, of the float32 logits. Published code mostly does so, some in the model's
  dtype.
- No idle forwards: a block that its last reveal finished needs no further forward. Loops with a schedule of steps have
  steps that reveal nothing; the next step's input is the same then, and no forward is counted (but for Dream's random
  order). `Decoded.steps` counts the steps, up to the last reveal.
- Ties go to the lowest position, and to the lowest token id.
- The mask id and the ids in `suppress` are never chosen, but keep their share of the probabilities. The two best
  tokens, of which gaps and margins are, are the two best that can be chosen.
- End of sequence (where `eos_ids` are given): as soon as one is revealed, everything after it becomes that token, with
  the same `reveal_step`, whatever stood there. Of two that are revealed together the first counts. The row ends when no
  mask stands before it. What is filled counts as revealed, so that blocks behind an end are still created. Published
  code stops in the middle, decides one forward late, or not at all, and creates no more blocks once there is an end
  (which shows with a growing canvas only).
- Entropy thresholds are strict, H < threshold. d3LLM's LLaDA code accepts H = threshold as well.
- Greedy, but for `block_schedule.loop`, which can be given the samples.
"""
