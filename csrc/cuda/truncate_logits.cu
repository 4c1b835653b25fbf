// The most probable tokens of each row: a cluster of blocks works on a row and keeps it, because the search visits it
// once for every two bits of a number. Each visit adds up weights in registers, so nothing is counted in shared memory,
// where all rows' common buckets would be waited for, and no order can change a sum: weights are integers.
#include "platform.cuh"

#include "../common/truncation.h"
#include "resident.cuh"
#include "row_sums.cuh"

namespace tad {
namespace cuda {

constexpr int kDigit = 2;  // of a key, at a visit: more would take more additions in all
constexpr int kParts = 1 << kDigit;

/// The largest key among a thread's columns.
template <class Key>
struct Largest {
  Key key = 0;
};
template <class Key>
__device__ __forceinline__ Largest<Key> merge(const Largest<Key>& x, const Largest<Key>& y) {
  return {x.key > y.key ? x.key : y.key};
}

/// Weights of the parts that the search may enter: each with those above it.
struct PartSums {
  int64_t from[kParts] = {};

  __device__ __forceinline__ void add(int part, int64_t weight) {
#pragma unroll
    for (int i = 0; i < kParts; ++i) from[i] += part >= i ? weight : 0;
  }
};
__device__ __forceinline__ PartSums merge(const PartSums& x, const PartSums& y) {
  PartSums sum;
  for (int i = 0; i < kParts; ++i) sum.from[i] = x.from[i] + y.from[i];
  return sum;
}

struct Merge {
  template <class T>
  __device__ __forceinline__ T operator()(const T& x, const T& y) const {
    return merge(x, y);
  }
};

/// The key at which the weights of a row, of its numbers from key `floor` on, reach needed(their sum).
template <class Real, class Source, class Weigh, class Needed>
__device__ __forceinline__ KeyOf<Real> least_key(
    Cluster& cluster, const ColumnRange& range, const Source& source, KeyOf<Real> floor, int silent, const Weigh& weigh,
    const Needed& needed) {
  Descent<KeyOf<Real>> left;
#pragma unroll 1
  for (bool first = true; left.bits > silent; first = false) {
    PartSums sums;
    for_each_group(range, [&](int group) {
      const Group<Real> x = source.template again<Real>(group);
      for (int i = 0; i < kGroup; ++i) {
        const KeyOf<Real> key = key_of(x.value[i]), part = left.part_of(key, kDigit);
        if (part < kParts && key >= floor) sums.add(int(part), weigh(x.value[i]));
      }
    });
    sums = cluster.template reduce<kRowThreads>(sums, by_pairs(Merge()));
    if (first) left.missing = needed(sums.from[0]);
    int part = 0;
    int64_t above = 0;
#pragma unroll
    for (int i = 1; i < kParts; ++i) {  // the higher, the less: the last one that suffices
      if (sums.from[i] >= left.missing)
        part = i;
      else if (part == i - 1)
        above = sums.from[i];
    }
    left.enter(KeyOf<Real>(part), kDigit, above);
  }
  return left.low;
}

/// Cluster i: row i. `whole_rows`: all are, of the logits and the result.
template <class Element, class Loader>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks<Element, Loader>)
    truncate_logits_kernel(TruncationArguments a, bool whole_rows) {
  using Real = typename RealOf<Element>::type;
  using Key = KeyOf<Real>;
  if constexpr (!knows<Loader>()) return;
  Cluster cluster;
  const int columns = int(a.vocabulary);
  const WarpColumns range = columns_of_warp(columns, cluster, kBatch<Element>);
  uint4* const kept = place_of_warp<Element, Loader>(range.kept_at);
  ArrivalsOf<Loader> arrivals;
  const Exponent<Real> exponent(1 / a.temperature);
  const Real peak = Real(weight_of_peak(a.vocabulary));
  const int silent = silent_bits(a.logits.dtype);

  for (int64_t row = blockIdx.x / cluster.size(); row < a.logits.row_count; row += gridDim.x / cluster.size()) {
    const Element* data = row_pointer<Element>(a.logits, row);
    Element* target = row_pointer<Element>(a.out, row);
    with_constant(whole_rows, [&](auto whole) {
      const auto source = part_of<whole.value, Loader>(data, columns, range, kept);
      arrivals.ask_for(range, 1, [&](int) { return source; });
      Largest<Key> largest;
      const auto visit = [&](int first, auto is_full) {
        Group<Real> x[kBatch<Element>];
        load<is_full.value>(source, first, x);
        for (int k = 0; k < kBatch<Element>; ++k)
          for (int i = 0; i < kGroup; ++i) largest = merge(largest, Largest<Key>{key_of(x[k].value[i])});
      };
      visit_first<Loader, kBatch<Element>>(arrivals, range, visit);
      Key low = 0;
      if (a.top_k < columns)
        low = least_key<Real>(
            cluster, range, source, low, silent, [](Real) { return int64_t(1); }, [&](int64_t) { return a.top_k; });
      if (a.top_p < 1) {
        const Real max = number_of(cluster.template reduce<kRowThreads>(largest, by_pairs(Merge())).key);
        if (has_probabilities(max))
          low = least_key<Real>(
              cluster, range, source, low, silent, [&](Real x) { return int64_t(exponent.exp(x - max) * peak); },
              [&](int64_t total) { return needed_weight(a.top_p, total); });
      }
      const Real least = number_of(low);
      const auto out = target_part_of<whole.value>(target, columns, range, /*add=*/false);
      for_each_group(range, [&](int group) {
        Group<Real> x = source.template again<Real>(group);
        for (int i = 0; i < kGroup; ++i)
          if (x.value[i] < least) x.value[i] = Real(-INFINITY);
        out.store(x, group);
      });
    });
  }
  cluster.leave();
}

Status truncate_logits(const TruncationArguments& a, Stream stream) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    const bool whole = are_whole(a.logits, a.vocabulary), all_whole = whole && are_whole(a.out, a.vocabulary);
    const RowPlan plan = plan_rows(current_device(), int(a.vocabulary), sizeof(Element), whole);
    const LaunchShape shape = shape_of(plan, a.logits.row_count, /*visited_twice=*/true);
    return with_loader(plan, [&](auto loader) {
      return launch(truncate_logits_kernel<Element, decltype(loader)>, shape, stream, a, all_whole);
    });
  });
}

}  // namespace cuda
}  // namespace tad
