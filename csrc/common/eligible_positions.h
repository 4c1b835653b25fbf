// What the next forward and the host need to know of one canvas: its eligible positions, and how far it is.
#pragma once

#include <cstdint>

#include "arguments.h"
#include "team.h"

namespace tad {
namespace TAD_ISA {

template <class Team>
TAD_HOST_DEVICE void eligible_positions_row(const Team& team, const EligiblePositionsArguments& a, int64_t row) {
  const int64_t* canvas = a.canvas + row * a.gen_length;
  int64_t* positions = a.positions + row * a.gen_length;
  const int64_t all = a.gen_length / a.block_length, blocks = a.blocks[row];
  const int64_t created = (blocks < 0 ? 0 : blocks > all ? all : blocks) * a.block_length;
  int64_t first = a.gen_length, eligible = 0, masks = 0;
  for (int64_t begin = 0; begin < a.gen_length; begin += team.size()) {
    const int64_t i = begin + team.rank();
    const bool masked = i < a.gen_length && canvas[i] == a.mask_token_id, member = masked && i < created;
    const int64_t place = team.place(member);
    if (member) positions[eligible + place] = i;
    eligible += team.count(member);
    masks += masked;
    if (masked && i < first) first = i;
  }
  for (int64_t i = eligible + team.rank(); i < a.gen_length; i += team.size()) positions[i] = -1;
  first = team.min(first);
  masks = team.sum(masks);
  if (team.rank() != 0) return;
  a.progress[3 * row] = masks == 0 ? 0 : first / a.block_length;
  a.progress[3 * row + 1] = eligible;
  a.progress[3 * row + 2] = masks;
}

}  // namespace TAD_ISA
}  // namespace tad
