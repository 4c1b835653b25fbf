// One decoding step of one canvas: which entries are revealed, the end-of-sequence rule, and the block schedule.
// The rules, numbered, are in the docstring of tad_ext.commit_reveal.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "platform.h"

namespace tad {
namespace TAD_ISA {

/// Revealed share of block `block`.
TAD_HOST_DEVICE double revealed_share(const RevealArguments& a, const int64_t* canvas, int64_t block) {
  int64_t revealed = 0;
  for (int64_t i = block * a.block_length; i < (block + 1) * a.block_length; ++i)
    revealed += canvas[i] != a.mask_token_id;
  return double(revealed) / double(a.block_length);
}

TAD_HOST_DEVICE bool ends_sequence(const RevealArguments& a, int64_t token) {
  for (int64_t i = 0; i < a.eos_count; ++i)
    if (a.eos_token_ids[i] == token) return true;
  return false;
}

/// NaN ranks with -inf.
TAD_HOST_DEVICE float ranked(float score) {
  return score == score ? score : -__builtin_inff();
}

/// Marks in `revealed` the accepted entries of `block`; with `must_progress`, its best entry where none is accepted.
/// The canvas is not written yet. Returns whether the block has eligible entries at all.
TAD_HOST_DEVICE bool choose_in_block(const RevealArguments& a, int64_t row, int64_t block, bool must_progress) {
  const int64_t* canvas = a.canvas + row * a.gen_length;
  const int64_t base = row * a.width;
  int64_t best = -1;
  bool accepted_any = false;
  for (int64_t entry = base; entry < base + a.width; ++entry) {
    const int64_t position = a.positions[entry];
    const bool member = position >= 0 && position < a.gen_length && position / a.block_length == block;
    if (!member || canvas[position] != a.mask_token_id) continue;
    if (a.accept[entry]) a.revealed[entry] = accepted_any = true;
    if (best < 0 || ranked(a.score[entry]) > ranked(a.score[best])) best = entry;
  }
  if (must_progress && !accepted_any && best >= 0) a.revealed[best] = true;
  return best >= 0;
}

TAD_HOST_DEVICE void reveal_row(const RevealArguments& a, int64_t row) {
  int64_t* canvas = a.canvas + row * a.gen_length;
  int64_t* reveal_step = a.reveal_step + row * a.gen_length;
  const int64_t base = row * a.width;
  for (int64_t entry = 0; entry < a.width; ++entry) a.revealed[base + entry] = false;
  if (a.done[row]) return;

  const int64_t step = ++a.forwards[row];
  const int64_t created = a.blocks[row];
  bool progress = false;
  for (int64_t block = 0; block < created; ++block) {
    const bool fully_active = block == 0 || revealed_share(a, canvas, block - 1) >= a.decoded_token_threshold;
    const bool must_progress = fully_active && !progress;
    if (choose_in_block(a, row, block, must_progress) && must_progress) progress = true;
  }

  int64_t first_end = a.gen_length;
  for (int64_t entry = 0; entry < a.width; ++entry) {
    if (!a.revealed[base + entry]) continue;
    const int64_t position = a.positions[base + entry];
    canvas[position] = a.tokens[base + entry];
    reveal_step[position] = step;
    if (position < first_end && ends_sequence(a, canvas[position])) first_end = position;
  }
  for (int64_t i = first_end + 1; i < a.gen_length; ++i) {
    canvas[i] = canvas[first_end];
    reveal_step[i] = step;
  }

  const double newest = revealed_share(a, canvas, created - 1);
  if ((newest >= a.block_add_threshold || newest == 1.0) && created * a.block_length < a.gen_length)
    a.blocks[row] = created + 1;
  bool complete = true;
  for (int64_t i = 0; i < a.gen_length && complete; ++i) complete = canvas[i] != a.mask_token_id;
  a.done[row] = complete;
}

}  // namespace TAD_ISA
}  // namespace tad
