// One decoding step of one canvas: which entries are revealed, the end-of-sequence rule, and the block schedule.
// The rules, numbered, are in the docstring of tad_ext.commit_reveal.
#pragma once

#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "team.h"

namespace tad {
namespace TAD_ISA {

/// Revealed share of block `block`.
template <class Team>
TAD_HOST_DEVICE double revealed_share(
    const Team& team, const RevealArguments& a, const int64_t* canvas, int64_t block) {
  int64_t revealed = 0;
  for (int64_t i = team.rank(); i < a.block_length; i += team.size())
    revealed += canvas[block * a.block_length + i] != a.mask_token_id;
  return double(team.sum(revealed)) / double(a.block_length);
}

TAD_HOST_DEVICE bool ends_sequence(const RevealArguments& a, int64_t token) {
  for (int64_t i = 0; i < a.eos_count; ++i)
    if (a.eos_token_ids[i] == token) return true;
  return false;
}

/// Marks in `revealed` the accepted entries of `block`; with `must_progress`, its best entry where none is accepted.
/// The canvas is not written yet. Returns whether the block has eligible entries at all.
template <class Team>
TAD_HOST_DEVICE bool choose_in_block(
    const Team& team, const RevealArguments& a, int64_t row, int64_t block, bool must_progress) {
  const int64_t* canvas = a.canvas + row * a.gen_length;
  const int64_t base = row * a.width;
  Candidate mine;
  bool accepted = false;
  for (int64_t entry = base + team.rank(); entry < base + a.width; entry += team.size()) {
    const int64_t position = a.positions[entry];
    const bool member = position >= 0 && position < a.gen_length && position / a.block_length == block;
    if (!member || canvas[position] != a.mask_token_id) continue;
    if (a.accept[entry]) a.revealed[entry] = accepted = true;
    const float score = a.score[entry];
    const Candidate candidate{score == score ? score : -INFINITY, entry};
    if (candidate.better_than(mine)) mine = candidate;
  }
  const Candidate best = team.best(mine);
  if (must_progress && !team.any(accepted) && best.entry == mine.entry && best.entry >= 0)
    a.revealed[best.entry] = true;
  return best.entry >= 0;
}

template <class Team>
TAD_HOST_DEVICE void reveal_row(const Team& team, const RevealArguments& a, int64_t row) {
  int64_t* canvas = a.canvas + row * a.gen_length;
  int64_t* reveal_step = a.reveal_step + row * a.gen_length;
  const int64_t base = row * a.width;
  for (int64_t entry = base + team.rank(); entry < base + a.width; entry += team.size()) a.revealed[entry] = false;
  if (a.done[row]) return;
  const int64_t step = a.forwards[row] + 1, blocks = a.gen_length / a.block_length;
  const int64_t created = a.blocks[row] < 1 ? 1 : a.blocks[row] > blocks ? blocks : a.blocks[row];

  bool progress = false;
  for (int64_t block = 0; block < created; ++block) {
    const bool fully_active = block == 0 || revealed_share(team, a, canvas, block - 1) >= a.decoded_token_threshold;
    const bool must_progress = fully_active && !progress;
    if (choose_in_block(team, a, row, block, must_progress) && must_progress) progress = true;
  }

  team.sync();  // another thread may still be counting what is overwritten here
  int64_t own_end = a.gen_length;
  for (int64_t entry = base + team.rank(); entry < base + a.width; entry += team.size()) {
    if (!a.revealed[entry]) continue;
    const int64_t position = a.positions[entry];
    canvas[position] = a.tokens[entry];
    reveal_step[position] = step;
    if (position < own_end && ends_sequence(a, a.tokens[entry])) own_end = position;
  }
  const int64_t first_end = team.min(own_end);
  team.sync();  // the fill below may overwrite what another thread has just revealed, and copies its token
  for (int64_t i = first_end + 1 + team.rank(); i < a.gen_length; i += team.size()) {
    canvas[i] = canvas[first_end];
    reveal_step[i] = step;
  }
  team.sync();

  const double newest = revealed_share(team, a, canvas, created - 1);
  int64_t own_first = a.gen_length;  // of the masks that are left
  for (int64_t i = team.rank(); i < a.gen_length && own_first == a.gen_length; i += team.size())
    if (canvas[i] == a.mask_token_id) own_first = i;
  const int64_t first = team.min(own_first);
  if (team.rank() != 0) return;
  const bool adds = (newest >= a.block_add_threshold || newest == 1.0) && created < blocks;
  const int64_t now = adds ? created + 1 : created, unfinished = first < a.gen_length ? first / a.block_length + 1 : 0;
  a.forwards[row] = step;
  a.blocks[row] = now > unfinished ? now : unfinished;
  a.done[row] = first == a.gen_length;
}

}  // namespace TAD_ISA
}  // namespace tad
