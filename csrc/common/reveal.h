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
  TAD_FEW_ROUNDS
  for (int64_t first = 0; first < a.block_length; first += team.size()) {
    const int64_t i = first + team.rank();
    revealed += team.count(i < a.block_length && canvas[block * a.block_length + i] != a.mask_token_id);
  }
  return double(revealed) / double(a.block_length);
}

TAD_HOST_DEVICE bool ends_sequence(const RevealArguments& a, int64_t token) {
  for (int64_t i = 0; i < a.eos_count; ++i)
    if (a.eos_token_ids[i] == token) return true;
  return false;
}

/// Of the calling thread's eligible entries between two positions: the best, the lowest position, and whether one is
/// marked.
struct Eligible {
  Candidate best;
  int64_t lowest;
  bool marked = false;
};

/// Looks at the eligible entries from position `begin` up to `end`; with kMark, marks in `revealed` the accepted ones.
/// The canvas is not written yet.
template <bool kMark, class Team>
TAD_HOST_DEVICE Eligible
eligible_entries(const Team& team, const RevealArguments& a, int64_t row, int64_t begin, int64_t end) {
  const int64_t* canvas = a.canvas + row * a.gen_length;
  const int64_t base = row * a.width;
  Eligible found;
  found.lowest = end;
  TAD_FEW_ROUNDS
  for (int64_t entry = base + team.rank(); entry < base + a.width; entry += team.size()) {
    const int64_t position = a.positions[entry];
    const float score = a.score[entry];
    const bool marked = (kMark ? a.accept : a.revealed)[entry];
    const bool eligible = position >= begin && position < end && canvas[position] == a.mask_token_id;
    if (kMark) a.revealed[entry] = eligible && marked;
    if (!eligible) continue;
    found.marked = found.marked || marked;
    if (position < found.lowest) found.lowest = position;
    const Candidate candidate{score == score ? score : -INFINITY, entry};
    if (candidate.better_than(found.best)) found.best = candidate;
  }
  return found;
}

/// Marks the best entry where none is marked. Returns it, or -1.
template <class Team>
TAD_HOST_DEVICE int64_t force(const Team& team, const RevealArguments& a, const Eligible& own) {
  if (team.any(own.marked)) return -1;
  const Candidate best = team.best(own.best);
  if (best.entry >= 0 && best.entry == own.best.entry) a.revealed[best.entry] = true;
  return best.entry;
}

/// Marks in `revealed` what this forward reveals. Returns the entry that gets its top token instead of its token, or
/// -1.
template <class Team>
TAD_HOST_DEVICE int64_t choose(const Team& team, const RevealArguments& a, int64_t row, int64_t created) {
  const bool whole_row = a.forced_progress == ForcedProgress::kRow;
  const int64_t created_end = created * a.block_length;
  const Eligible of_row = eligible_entries<true>(team, a, row, 0, created_end);
  if (whole_row) force(team, a, of_row);
  int64_t lowest = team.min(of_row.lowest);
  while (lowest < created_end) {  // from block to block, but for those without eligible entries
    const int64_t block = lowest / a.block_length, end = (block + 1) * a.block_length;
    const bool fully_active =
        block == 0 || revealed_share(team, a, a.canvas + row * a.gen_length, block - 1) >= a.decoded_token_threshold;
    if (fully_active) {
      const int64_t forced = force(team, a, eligible_entries<false>(team, a, row, lowest, end));
      if (a.forced_progress != ForcedProgress::kBlocks) return whole_row ? forced : -1;
    }
    lowest = team.min(eligible_entries<false>(team, a, row, end, created_end).lowest);
  }
  return -1;
}

template <class Team>
TAD_HOST_DEVICE void reveal_row(const Team& team, const RevealArguments& a, int64_t row) {
  int64_t* canvas = a.canvas + row * a.gen_length;
  int64_t* reveal_step = a.reveal_step + row * a.gen_length;
  const int64_t base = row * a.width;
  const bool done = a.done[row];
  const int64_t step = a.forwards[row] + 1, was_created = a.blocks[row], blocks = a.gen_length / a.block_length;
  if (done) {
    TAD_FEW_ROUNDS
    for (int64_t entry = base + team.rank(); entry < base + a.width; entry += team.size()) a.revealed[entry] = false;
    return;
  }
  const int64_t created = was_created < 1 ? 1 : was_created > blocks ? blocks : was_created;

  const int64_t with_top_token = choose(team, a, row, created);

  team.sync();  // another thread may still be counting what is overwritten here
  int64_t own_end = a.gen_length;
  TAD_FEW_ROUNDS
  for (int64_t entry = base + team.rank(); entry < base + a.width; entry += team.size()) {
    if (!a.revealed[entry]) continue;
    const int64_t position = a.positions[entry], token = (entry == with_top_token ? a.top_tokens : a.tokens)[entry];
    canvas[position] = token;
    reveal_step[position] = step;
    if (position < own_end && ends_sequence(a, token)) own_end = position;
  }
  if (team.any(own_end < a.gen_length)) {
    const int64_t first_end = team.min(own_end);
    team.sync();  // the fill may overwrite what another thread has just revealed, and copies its token
    for (int64_t i = first_end + 1 + team.rank(); i < a.gen_length; i += team.size()) {
      canvas[i] = canvas[first_end];
      reveal_step[i] = step;
    }
  }
  team.sync();

  int64_t own_first = a.gen_length;  // of the masks that are left
  for (int64_t i = team.rank(); i < a.gen_length; i += team.size())
    if (canvas[i] == a.mask_token_id && i < own_first) own_first = i;
  const double newest = revealed_share(team, a, canvas, created - 1);
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
