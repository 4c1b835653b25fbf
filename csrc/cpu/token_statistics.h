// What a decoding policy wants to know about one logits row, from one read of it.
#pragma once

#include "../common/statistics.h"
#include "noise.h"
#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

/// Pushes a block's elements. Few are among the two best so far: only vectors that hold one are looked into.
template <class Real, class Element>
void push_block(
    const TokenStatisticsArguments& a, const Element* block, int64_t begin, int64_t count, Top2<Real>& top) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  for_each_vectors<Real, kSide>(padded<Real>(count), [&](int64_t i, auto vectors) {
    constexpr int kCount = vectors.value;
    Vector<Real> x[kCount];
    for (int k = 0; k < kCount; ++k) x[k] = load<Real>(block + i + k * kLanes);
    if (!any_above<Real>(tree_max<Real, kCount>(x), top.second_value)) return;
    for (int64_t j = i; j < i + kCount * kLanes && j < count; ++j) {
      const Real value = from_storage<Real>(block[j]);
      if (value > top.second_value && !is_suppressed(a, begin + j)) top.push(value, begin + j);
    }
  });
}

/// Whether any of `count` columns, or of what pads them to whole vectors, is not -inf.
template <class Real, class Element>
bool any_possible(const Element* columns, int64_t count) {
  for (int64_t i = 0; i < count; i += Simd<Real>::kLanes)
    if (any_above<Real>(load<Real>(columns + i), negative_infinity<Real>())) return true;
  return false;
}

template <class Real>
void slice_statistics(
    const TokenStatisticsArguments& a, int64_t entry, int64_t slice, const SliceStatistics* before,
    SliceStatistics* result) {
  RowReader<Real> reader(a.logits, a.rows ? a.rows[entry] : entry);
  RowStatistics<Real> part;
  if (before) {  // only what beats the slices before can be among a row's best
    const auto found = read_plain<RowStatistics<Real>>(*before);
    part.top.value = part.top.second_value = found.top.second_value;
    part.sample.key = found.sample.key;
  }
  const auto choose = [&](auto block, int64_t begin, int64_t count, double max) {
    if (max > part.top.second_value) push_block(a, block, begin, count, part.top);
    if (a.temperature == 0) return;
    GumbelBest::Bar bar = part.sample.bar(max, a.temperature);
    if (!(max > bar.logit)) return;
    constexpr int64_t kColumns = 4 * kNoiseQuads;
    for (int64_t i = 0; i < count; i += kColumns) {
      const int64_t columns = count - i < kColumns ? count - i : kColumns;
      if (!any_possible<Real>(block + i, columns)) continue;  // as mostly in a truncated row
      PhiloxWords words[kNoiseQuads];
      if (!noise_words(a.seeds[entry], a.offsets[entry], (begin + i) / 4, bar.word, words)) continue;
      const double key = part.sample.key;
      for (int64_t j = i; j < i + columns; j += 4) {
        Real quad[4];
        const int64_t in_quad = count - j < 4 ? count - j : 4;
        for (int64_t k = 0; k < in_quad; ++k) quad[k] = from_storage<Real>(block[j + k]);
        part.sample.offer(a, quad, (begin + j) / 4, in_quad, bar, words[(j - i) / 4]);
      }
      if (part.sample.key != key) bar = part.sample.bar(max, a.temperature);
    }
  };
  part.sum = peaked_sum(reader, a.vocabulary, slice, choose);
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
