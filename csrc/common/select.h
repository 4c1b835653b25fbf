// Which entries of a canvas a rule accepts, by their statistics. The rules are in the docstring of
// tad_ext.ops.Selection.
#pragma once

#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "team.h"

namespace tad {
namespace TAD_ISA {

/// log(m / (1 - m)) of a margin m. Near 1 it is taken from the odds against the token, which is the best one there (a
/// margin above 1/2 leaves less than that to any other), and from the gap: m itself is 1 in float32 beyond 17 nats.
TAD_HOST_DEVICE float margin_log_odds(float margin, float confidence, float log_odds, float gap) {
  const double m = double(margin);
  if (!(margin > 0.5f && confidence >= margin)) return float(std::log(m / (1 - m)));
  const double second = std::exp(-double(gap));  // relative to the best
  return float(std::log((1 - second) / (std::exp(-double(log_odds)) + second)));
}

TAD_HOST_DEVICE bool may_be_chosen(const SelectionArguments& a, int64_t entry) {
  return a.valid[entry] & (a.positions[entry] >= 0);  // both are loaded at once
}

/// The higher, the better, of an entry that may be chosen.
TAD_HOST_DEVICE float score_of(const SelectionArguments& a, int64_t entry) {
  switch (a.rule) {
    case Rule::kMargin: return margin_log_odds(a.margin[entry], a.confidence[entry], a.log_odds[entry], a.gap[entry]);
    case Rule::kEntropy:
    case Rule::kEntropyBudget: return -a.entropy[entry];
    default: return a.log_odds[entry];
  }
}

/// What is known of the entries that stand before one in its row.
struct Before {
  int64_t count = 0;
  double entropies = 0;      // their sum
  float weakest = INFINITY;  // the lowest confidence among them
  int64_t others = 0;        // all that may be chosen, before it or behind, but the entry itself
};

/// Whether the entry of rank `before` + 1 meets the bound that rises with the rank.
TAD_HOST_DEVICE bool meets_factor(const SelectionArguments& a, float confidence, int64_t before) {
  return before == 0 || double(confidence) >= 1 - a.value / double(before + 2);
}

TAD_HOST_DEVICE bool accepts(const SelectionArguments& a, int64_t entry, const Before& before) {
  switch (a.rule) {
    case Rule::kTopK: return double(before.count + 1) <= a.value;
    case Rule::kConfidence: return a.confidence[entry] >= float(a.value);
    case Rule::kFactor: return meets_factor(a, a.confidence[entry], before.count);
    case Rule::kFactorCode:
      if (before.count > 0 && before.count == before.others) return meets_factor(a, before.weakest, before.count - 1);
      return meets_factor(a, a.confidence[entry], before.count);
    case Rule::kMargin: return a.margin[entry] >= float(a.value);
    case Rule::kEntropy: return a.entropy[entry] < float(a.value);
    default: return before.entropies <= a.value;
  }
}

TAD_HOST_DEVICE bool is_ranked(Rule rule) {
  return rule == Rule::kTopK || rule == Rule::kFactor || rule == Rule::kFactorCode || rule == Rule::kEntropyBudget;
}

/// What stands before an entry, as far as the rule asks. No branches: a GPU loads what several rounds need at once.
TAD_HOST_DEVICE Before before(const SelectionArguments& a, int64_t begin, int64_t end, int64_t entry) {
  const Candidate own{a.score[entry], entry};
  Before found;
  for (int64_t other = begin; other < end; ++other) {
    const bool better = Candidate{a.score[other], other}.better_than(own);
    found.count += better;
    if (a.rule == Rule::kEntropyBudget) {
      const double entropy = double(a.entropy[other]);
      if (better) found.entropies += entropy;
    }
    if (a.rule == Rule::kFactorCode) {
      const float confidence = a.confidence[other];
      if (better && confidence < found.weakest) found.weakest = confidence;
      found.others += may_be_chosen(a, other) && other != entry;
    }
  }
  return found;
}

/// Writes score and accept of one canvas's entries.
template <class Team>
TAD_HOST_DEVICE void select_row(const Team& team, const SelectionArguments& a, int64_t row) {
  const int64_t begin = row * a.width, end = begin + a.width;
  const bool ranked = is_ranked(a.rule);
  TAD_FEW_ROUNDS
  for (int64_t entry = begin + team.rank(); entry < end; entry += team.size()) {
    const float score = score_of(a, entry);  // asked for before what says whether it counts
    const bool possible = may_be_chosen(a, entry);
    a.score[entry] = possible ? score : -INFINITY;
    if (!ranked) a.accept[entry] = possible && accepts(a, entry, {});
  }
  team.sync();
  if (!ranked) return;
  TAD_FEW_ROUNDS
  for (int64_t entry = begin + team.rank(); entry < end; entry += team.size()) {
    const Before others = before(a, begin, end, entry);
    a.accept[entry] = may_be_chosen(a, entry) && accepts(a, entry, others);
  }
  team.sync();
}

}  // namespace TAD_ISA
}  // namespace tad
