// What a decoding policy wants to know about one logits row, from one read of it.
#pragma once

#include "../common/philox.h"
#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

inline bool is_suppressed(const TokenStatisticsArguments& a, int64_t token) {
  int64_t low = 0, high = a.suppressed_count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (a.suppressed[middle] < token)
      low = middle + 1;
    else
      high = middle;
  }
  return low < a.suppressed_count && a.suppressed[low] == token;
}

/// The lowest allowed token other than `taken`; -1 where there is none.
inline int64_t lowest_allowed(const TokenStatisticsArguments& a, int64_t taken) {
  for (int64_t token = 0; token < a.vocabulary; ++token)
    if (token != taken && !is_suppressed(a, token)) return token;
  return -1;
}

/// The token that wins logit / T + Gumbel noise.
struct Sampler {
  double best = -INFINITY;
  int64_t token = -1;
  double logit = -INFINITY;

  template <class Real>
  void visit_block(const TokenStatisticsArguments& a, int64_t entry, const Real* block, int64_t begin, int64_t count) {
    PhiloxWords words{};
    int64_t words_of = -1;
    for (int64_t i = begin; i < begin + count; ++i) {
      const double scaled = double(block[i - begin]) / a.temperature;
      if (!(scaled + kGumbelBound > best) || is_suppressed(a, i)) continue;
      if (words_of != i / 4) {
        words = philox(uint64_t(a.seeds[entry]), uint64_t(a.offsets[entry]), uint32_t(i / 4));
        words_of = i / 4;
      }
      const double key = scaled + gumbel(words.word[i % 4]);
      if (key > best) {
        best = key;
        token = i;
        logit = double(block[i - begin]);
      }
    }
  }
};

template <class Real>
void token_statistics_entry(const TokenStatisticsArguments& a, int64_t entry) {
  const int64_t source = a.rows ? a.rows[entry] : entry;
  a.token[entry] = 0;
  a.second_token[entry] = -1;
  a.confidence[entry] = a.margin[entry] = 0;
  a.entropy[entry] = INFINITY;
  a.logsumexp[entry] = -INFINITY;
  a.valid[entry] = false;
  if (source < 0) return;

  RowReader<Real> reader(a.logits, source);
  Top2<Real> top;
  Sampler sample;
  const auto choose = [&](const Real* block, int64_t begin, int64_t count, Real max) {
    // A block rarely holds one of the two best so far; only then is it looked at element by element.
    if (max > top.second_value)
      for (int64_t i = 0; i < count; ++i)
        if (block[i] > top.second_value && !is_suppressed(a, begin + i)) top.push(block[i], begin + i);
    if (a.temperature > 0 && double(max) / a.temperature + kGumbelBound > sample.best)
      sample.visit_block(a, entry, block, begin, count);
  };
  const RowSum<double> row = entropy_sum(reader, a.vocabulary, choose);

  if (top.index < 0) {
    const int64_t token = lowest_allowed(a, -1);
    top.index = token < 0 ? 0 : token;
  }
  if (top.second_index < 0) top.second_index = lowest_allowed(a, top.index);
  const bool sampled = a.temperature > 0 && sample.token >= 0;
  a.token[entry] = sampled ? sample.token : top.index;
  a.second_token[entry] = top.second_index;
  a.valid[entry] = row.sum == row.sum;
  if (!a.valid[entry]) {
    a.logsumexp[entry] = NAN;
    return;
  }
  if (row.sum == 0) return;  // nothing is possible
  const auto probability = [&](double logit) { return float(std::exp(logit - row.max) / row.sum); };
  a.confidence[entry] = probability(sampled ? sample.logit : double(top.value));
  a.margin[entry] = probability(double(top.value)) - probability(double(top.second_value));
  a.entropy[entry] = float(row.entropy());
  a.logsumexp[entry] = float(row.max + row.log_sum());
}

}  // namespace TAD_ISA
}  // namespace tad
