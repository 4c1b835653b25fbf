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

/// The eligible entries of some blocks that a team looks at: whether there are any, whether one is marked, and the
/// best.
struct Eligible {
  bool any = false, marked = false;
  Candidate best;  // of all
  Candidate mine;  // of those of the calling thread
};

/// Looks at the eligible entries of the blocks from `first` up to `end`; with kMark, marks in `revealed` the accepted
/// ones. The canvas is not written yet.
template <bool kMark, class Team>
TAD_HOST_DEVICE Eligible
eligible_entries(const Team& team, const RevealArguments& a, int64_t row, int64_t first, int64_t end) {
  const int64_t* canvas = a.canvas + row * a.gen_length;
  const int64_t base = row * a.width;
  Eligible found;
  bool marked = false;
  for (int64_t entry = base + team.rank(); entry < base + a.width; entry += team.size()) {
    const int64_t position = a.positions[entry];
    const bool inside = position >= first * a.block_length && position < end * a.block_length;
    if (kMark) a.revealed[entry] = inside && canvas[position] == a.mask_token_id && a.accept[entry];
    if (!inside || canvas[position] != a.mask_token_id) continue;
    marked = marked || a.revealed[entry];
    const float score = a.score[entry];
    const Candidate candidate{score == score ? score : -INFINITY, entry};
    if (candidate.better_than(found.mine)) found.mine = candidate;
  }
  found.best = team.best(found.mine);
  found.any = found.best.entry >= 0;
  found.marked = team.any(marked);
  return found;
}

/// Marks the best entry where there is one and none is marked. Returns it, or -1.
TAD_HOST_DEVICE int64_t force(const RevealArguments& a, const Eligible& entries) {
  if (!entries.any || entries.marked) return -1;
  if (entries.best.entry == entries.mine.entry) a.revealed[entries.best.entry] = true;
  return entries.best.entry;
}

/// Marks in `revealed` what this forward reveals. Returns the entry that gets its top token instead of its token, or
/// -1.
template <class Team>
TAD_HOST_DEVICE int64_t choose(const Team& team, const RevealArguments& a, int64_t row, int64_t created) {
  const bool whole_row = a.forced_progress == ForcedProgress::kRow;
  const Eligible of_row = eligible_entries<true>(team, a, row, 0, created);
  if (whole_row) force(a, of_row);
  for (int64_t block = 0; block < created; ++block) {
    const bool fully_active =
        block == 0 || revealed_share(team, a, a.canvas + row * a.gen_length, block - 1) >= a.decoded_token_threshold;
    if (!fully_active) continue;
    const Eligible of_block = eligible_entries<false>(team, a, row, block, block + 1);
    const int64_t forced = force(a, of_block);
    if (of_block.any && a.forced_progress != ForcedProgress::kBlocks) return whole_row ? forced : -1;
  }
  return -1;
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

  const int64_t with_top_token = choose(team, a, row, created);

  team.sync();  // another thread may still be counting what is overwritten here
  int64_t own_end = a.gen_length;
  for (int64_t entry = base + team.rank(); entry < base + a.width; entry += team.size()) {
    if (!a.revealed[entry]) continue;
    const int64_t position = a.positions[entry], token = (entry == with_top_token ? a.top_tokens : a.tokens)[entry];
    canvas[position] = token;
    reveal_step[position] = step;
    if (position < own_end && ends_sequence(a, token)) own_end = position;
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
