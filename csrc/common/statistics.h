// Token statistics: which tokens may be chosen, sampling by Gumbel noise, and what a row's sums say in the end.
#pragma once

#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "philox.h"
#include "row_math.h"

namespace tad {
namespace TAD_ISA {

/// The row of logits that an entry names; -1 for padding.
TAD_HOST_DEVICE int64_t row_of_entry(const TokenStatisticsArguments& a, int64_t entry) {
  if (a.positions && a.positions[entry] < 0) return -1;
  return a.rows ? a.rows[entry] : entry;
}

/// The place in the list of the first suppressed token from `token` on.
TAD_HOST_DEVICE int64_t first_suppressed(const TokenStatisticsArguments& a, int64_t token) {
  int64_t low = 0, high = a.suppressed_count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (a.suppressed[middle] < token)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

TAD_HOST_DEVICE bool is_suppressed(const TokenStatisticsArguments& a, int64_t token) {
  const int64_t place = first_suppressed(a, token);
  return place < a.suppressed_count && a.suppressed[place] == token;
}

/// The lowest allowed token other than `taken`; -1 where there is none.
TAD_HOST_DEVICE int64_t lowest_allowed(const TokenStatisticsArguments& a, int64_t taken) {
  for (int64_t token = 0; token < a.vocabulary; ++token)
    if (token != taken && !is_suppressed(a, token)) return token;
  return -1;
}

/// The token that wins logit / T + Gumbel noise among those offered; a tie goes to the lower token.
struct GumbelBest {
  double key = -INFINITY;
  double logit = -INFINITY;
  int64_t token = -1;

  /// What a token needs at least to beat what wins so far: its logit, whatever its noise, and the upper 24 bits of its
  /// noise's word, given that its logit is at most `largest`. Most words are below it, and need no logarithms.
  struct Bar {
    double logit;
    uint32_t word;
  };
  TAD_HOST_DEVICE Bar bar(double largest, double temperature) const {
    Bar bar{(key - kGumbelBound - 1e-6) * temperature, 0};
    const double needed = key - largest / temperature;
    if (!(needed > -3)) return bar;                       // no noise is lower
    const double uniform = std::exp(-std::exp(-needed));  // whose noise that is
    const double word = uniform * 16777216.0 - 2;         // two less, whatever rounding did
    if (word > 0) bar.word = uint32_t(word);
    return bar;
  }

  /// Offers a logit above -inf, whose noise is made of `word`.
  TAD_HOST_DEVICE void offer(
      const TokenStatisticsArguments& a, double candidate, int64_t candidate_token, uint32_t word) {
    if (is_suppressed(a, candidate_token)) return;
    const double noisy = candidate / a.temperature + gumbel(word);
    if (!(noisy > key)) return;
    key = noisy;
    logit = candidate;
    token = candidate_token;
  }

  /// Offers up to four logits, those of tokens 4 * quad, 4 * quad + 1, ...: one call of Philox makes noise for four.
  template <class Real>
  TAD_HOST_DEVICE void offer(
      const TokenStatisticsArguments& a, const Real* logits, int64_t quad, int64_t count, const Bar& bar,
      const PhiloxWords& words) {
    for (int i = 0; i < 4; ++i) {
      if (i >= count) break;
      const double candidate = double(logits[i]);
      if (words.word[i] >> 8 >= bar.word && candidate > bar.logit) offer(a, candidate, 4 * quad + i, words.word[i]);
    }
  }
};

TAD_HOST_DEVICE GumbelBest merge(const GumbelBest& a, const GumbelBest& b) {
  GumbelBest best = a;
  if (!precedes(a.key, a.token, b.key, b.token)) best = b;
  return best;
}

/// What is known about a part of a row.
template <class Real>
struct RowStatistics {
  PeakedSum<double> sum;
  Top2<Real> top;
  GumbelBest sample;
};

template <class Real>
TAD_HOST_DEVICE RowStatistics<Real> merge(const RowStatistics<Real>& a, const RowStatistics<Real>& b) {
  return {merge(a.sum, b.sum), merge(a.top, b.top), merge(a.sample, b.sample)};
}

/// What an entry says; first, what one says that is padding, or whose row is not there.
struct EntryStatistics {
  int64_t token = 0, top_token = 0, second_token = -1;
  float confidence = 0, margin = 0, gap = 0, log_odds = -INFINITY, logsumexp = -INFINITY, entropy = INFINITY;
  bool valid = false;

  TAD_HOST_DEVICE void write(const TokenStatisticsArguments& a, int64_t entry) const {
    a.token[entry] = token;
    a.top_token[entry] = top_token;
    a.second_token[entry] = second_token;
    a.confidence[entry] = confidence;
    a.margin[entry] = margin;
    a.gap[entry] = gap;
    a.log_odds[entry] = log_odds;
    a.logsumexp[entry] = logsumexp;
    a.entropy[entry] = entropy;
    a.valid[entry] = valid;
  }
};

TAD_HOST_DEVICE void write_empty_statistics(const TokenStatisticsArguments& a, int64_t entry) {
  EntryStatistics().write(a, entry);
}

/// An entry's statistics from those of its whole row.
template <class Real>
TAD_HOST_DEVICE void write_statistics(
    const TokenStatisticsArguments& a, int64_t entry, const RowStatistics<Real>& found) {
  const PeakedSum<double>& row = found.sum;
  const GumbelBest& sample = found.sample;
  Top2<Real> top = found.top;
  if (top.index < 0) {
    const int64_t token = lowest_allowed(a, -1);
    top.index = token < 0 ? 0 : token;
  }
  if (top.second_index < 0) top.second_index = lowest_allowed(a, top.index);
  const bool sampled = a.temperature > 0 && sample.token >= 0;
  EntryStatistics says;
  says.token = sampled ? sample.token : top.index;
  says.top_token = top.index;
  says.second_token = top.second_index;
  says.valid = row.others == row.others;
  if (!says.valid) {
    says.logsumexp = NAN;
  } else if (row.any()) {  // otherwise nothing is possible
    const double best = double(top.value), second = double(top.second_value), chosen = sampled ? sample.logit : best;
    const auto probability = [&](double logit) { return float(std::exp(logit - row.max) / (1 + row.others)); };
    const float of_best = probability(best);
    says.confidence = sampled ? probability(chosen) : of_best;
    says.log_odds = float(-std::log(row.odds_against(chosen)));
    says.margin = of_best - probability(second);
    says.gap = best > second ? float(best - second) : 0;  // both may be -inf
    const double log_sum = row.log_sum();
    says.entropy = float(row.entropy(log_sum));
    says.logsumexp = float(row.max + log_sum);
  }
  says.write(a, entry);
}

}  // namespace TAD_ISA
}  // namespace tad
