// What a decoding policy wants to know about one logits row, from one read of it.
#pragma once

#include "../common/statistics.h"
#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

template <class Real>
void slice_statistics(const TokenStatisticsArguments& a, int64_t entry, int64_t slice, SliceStatistics* result) {
  RowReader<Real> reader(a.logits, a.rows ? a.rows[entry] : entry);
  RowStatistics<Real> part;
  const auto choose = [&](auto block, int64_t begin, int64_t count, Real max) {
    // A block rarely holds one of the two best so far; only then is it looked at element by element.
    if (max > part.top.second_value)
      for (int64_t i = 0; i < count; ++i) {
        const Real x = from_storage<Real>(block[i]);
        if (x > part.top.second_value && !is_suppressed(a, begin + i)) part.top.push(x, begin + i);
      }
    if (a.temperature == 0) return;
    GumbelBest::Bar bar = part.sample.bar(double(max), a.temperature);
    if (!(double(max) > bar.logit)) return;
    for (int64_t i = 0; i < count; i += 4) {
      Real quad[4];
      const int64_t in_quad = count - i < 4 ? count - i : 4;
      for (int64_t k = 0; k < in_quad; ++k) quad[k] = from_storage<Real>(block[i + k]);
      const double before = part.sample.key;
      part.sample.offer(a, entry, quad, (begin + i) / 4, in_quad, bar);
      if (part.sample.key != before) bar = part.sample.bar(double(max), a.temperature);
    }
  };
  part.sum = entropy_sum(reader, a.vocabulary, slice, choose);
  write_plain(part, result);
}

template <class Real>
void token_statistics(const TokenStatisticsArguments& a, int64_t entry, const SliceStatistics* slices) {
  RowStatistics<Real> row;
  for (int64_t slice = 0; slice < slices_of(a.vocabulary); ++slice)
    row = merge(row, read_plain<RowStatistics<Real>>(slices[slice]));
  write_statistics(a, entry, row);
}

}  // namespace TAD_ISA
}  // namespace tad
