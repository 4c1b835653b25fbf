// Which entries of a canvas a rule accepts, by their statistics. The rules are in the docstring of
// tad_ext.ops.Selection.
#pragma once

#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "team.h"

namespace tad {
namespace TAD_ISA {

/// The higher, the better; -inf where an entry is not to be chosen.
TAD_HOST_DEVICE float score_of(const SelectionArguments& a, int64_t entry) {
  if (!a.valid[entry] || a.positions[entry] < 0) return -INFINITY;
  switch (a.rule) {
    case Rule::kMargin: return a.margin[entry];
    case Rule::kEntropy:
    case Rule::kEntropyBudget: return -a.entropy[entry];
    default: return a.confidence[entry];
  }
}

/// Whether an entry is accepted that so many others of its row stand before, their entropies summing to `spent`.
TAD_HOST_DEVICE bool accepts(const SelectionArguments& a, int64_t entry, int64_t before, double spent) {
  switch (a.rule) {
    case Rule::kTopK: return double(before + 1) <= a.value;
    case Rule::kConfidence: return a.confidence[entry] >= float(a.value);
    case Rule::kFactor: return before == 0 || double(a.confidence[entry]) >= 1 - a.value / double(before + 2);
    case Rule::kMargin: return a.margin[entry] >= float(a.value);
    case Rule::kEntropy: return a.entropy[entry] < float(a.value);
    default: return spent <= a.value;
  }
}

/// Writes score and accept of one canvas's entries.
template <class Team>
TAD_HOST_DEVICE void select_row(const Team& team, const SelectionArguments& a, int64_t row) {
  const int64_t begin = row * a.width, end = begin + a.width;
  const bool ranks = a.rule == Rule::kTopK || a.rule == Rule::kFactor || a.rule == Rule::kEntropyBudget;
  for (int64_t entry = begin + team.rank(); entry < end; entry += team.size()) a.score[entry] = score_of(a, entry);
  team.sync();
  for (int64_t entry = begin + team.rank(); entry < end; entry += team.size()) {
    const Candidate own{a.score[entry], entry};
    int64_t before = 0;
    double spent = 0;
    for (int64_t other = begin; other < end && ranks; ++other) {
      if (!Candidate{a.score[other], other}.better_than(own)) continue;
      ++before;
      spent += double(a.entropy[other]);
    }
    a.accept[entry] = a.valid[entry] && a.positions[entry] >= 0 && accepts(a, entry, before, spent);
  }
  team.sync();
}

}  // namespace TAD_ISA
}  // namespace tad
