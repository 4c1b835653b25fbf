// What a decoding policy wants to know about one logits row, from one read of it.
#pragma once

#include "../common/statistics.h"
#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

template <class Real>
void token_statistics_entry(const TokenStatisticsArguments& a, int64_t entry) {
  const int64_t source = a.rows ? a.rows[entry] : entry;
  if (source < 0) return write_empty_statistics(a, entry);

  RowReader<Real> reader(a.logits, source);
  Top2<Real> top;
  GumbelBest sample;
  const auto choose = [&](const Real* block, int64_t begin, int64_t count, Real max) {
    // A block rarely holds one of the two best so far; only then is it looked at element by element.
    if (max > top.second_value)
      for (int64_t i = 0; i < count; ++i)
        if (block[i] > top.second_value && !is_suppressed(a, begin + i)) top.push(block[i], begin + i);
    if (a.temperature > 0 && sample.can_win(double(max), a.temperature))
      for (int64_t i = 0; i < count; i += 4) sample.offer(a, entry, block + i, (begin + i) / 4, count - i);
  };
  const RowSum<double> row = entropy_sum(reader, a.vocabulary, choose);
  write_statistics(a, entry, row, top, sample);
}

}  // namespace TAD_ISA
}  // namespace tad
