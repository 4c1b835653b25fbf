// Token statistics in two launches. A decoding step asks for 32 to 96 rows, fewer than a GPU has multiprocessors, so
// rows are cut into slices that depend on nothing but the vocabulary: a block works on one slice of one row, then half
// a warp per entry merges its slices. Where a rule chooses by them and tokens are revealed at once, a block per canvas
// does that in the same, second launch.
#include "platform.cuh"

#include "../common/reveal.h"
#include "../common/select.h"
#include "merge_slices.cuh"
#include "resident.cuh"
#include "row_sums.cuh"
#include "team.cuh"

namespace tad {
namespace cuda {

constexpr int kSliceThreads = kRowThreads;
constexpr int kGroups = 8;  // per thread
constexpr int kLoaded = 4;  // of them on their way at a time
constexpr int kLoads = kGroups / kLoaded;
constexpr int kStride = kSliceThreads * kGroup;  // columns from one of its groups to the next
constexpr int kSliceColumns = kGroups * kStride;
constexpr int kRevealThreads = 768;                          // of which each has 80 registers
constexpr int kMergedAtOnce = kRevealThreads / kMergeLanes;  // entries of a canvas
constexpr int kMergedEntries = 3 * kMergedAtOnce;            // of which shared memory has room for the statistics

/// Blocks per multiprocessor that registers must suffice for: as many as ptxas reaches without spills.
template <class Element, bool kSampled>
constexpr int kMinBlocks = sizeof(Element) == 8                ? 1
                           : std::is_same_v<Element, BFloat16> ? (kSampled ? 2 : 5)
                                                               : (kSampled ? 2 : 5);

__host__ __device__ __forceinline__ int64_t slices_of(int64_t vocabulary) {
  return (vocabulary + kSliceColumns - 1) / kSliceColumns;
}

/// The two largest of the threads' largest logits that may be chosen, each thread having one.
template <class Real>
struct Maxima {
  Real first = Real(-INFINITY), second = Real(-INFINITY);
};
template <class Real>
__device__ __forceinline__ Maxima<Real> merge(const Maxima<Real>& a, const Maxima<Real>& b) {
  Maxima<Real> both;
  both.first = fmax(a.first, b.first);
  both.second = fmax(fmin(a.first, b.first), fmax(a.second, b.second));
  return both;
}

/// Whether any id of columns [begin, end) is suppressed: the same for all lanes of a warp.
__device__ __forceinline__ bool any_suppressed(const TokenStatisticsArguments& a, int begin, int end) {
  bool found = false;
  for (int64_t k = threadIdx.x % kWarp; k < a.suppressed_count; k += kWarp)
    found |= unsigned(a.suppressed[k]) - begin < unsigned(end - begin);
  return __any_sync(~0u, found) != 0;
}

/// A bit for each group of the threads of a warp, g of kStride columns, where that of any lane has a suppressed id.
__device__ __forceinline__ unsigned groups_with_suppressed(const TokenStatisticsArguments& a, int begin, int end) {
  unsigned groups = 0;
  for (int64_t k = threadIdx.x % kWarp; k < a.suppressed_count; k += kWarp) {
    const unsigned at = unsigned(a.suppressed[k]) - begin;
    if (at < unsigned(end - begin) && at % kStride / (kWarp * kGroup) == threadIdx.x / kWarp)
      groups |= 1u << at / kStride;
  }
  return by_pairs([](unsigned x, unsigned y) { return x | y; })(groups);
}

/// A bit for each column of a group, where its id is suppressed.
__device__ __forceinline__ unsigned suppressed_in_group(const TokenStatisticsArguments& a, int column) {
  unsigned bits = 0;
  for (int64_t k = first_suppressed(a, column); k < a.suppressed_count && a.suppressed[k] < column + kGroup; ++k)
    bits |= 1u << unsigned(a.suppressed[k] - column);
  return bits;
}

/// A thread's sums over its columns of a slice, of 2^(scale * x - power), but for those that are the slice's largest.
struct SliceSums {
  double others = 0, weighted = 0;  // weighted by the exponents
  int largest = 0;                  // how many are
};

/// All that a slice's threads add up, and how: of the largest and the two best hardly any lane knows anything.
template <class Real>
struct SlicePart {
  SliceSums sums;
  Top2<Real> top;
};
struct OfSliceParts {
  template <class Real, int kLanes>
  __device__ __forceinline__ SlicePart<Real> operator()(SlicePart<Real> part, Lanes<kLanes> lanes) const {
    part.sums.others = by_pairs(Plus())(part.sums.others, lanes);
    part.sums.weighted = by_pairs(Plus())(part.sums.weighted, lanes);
    int largest = 0;
    Top2<Real> top;
    unsigned knowing = __ballot_sync(~0u, part.sums.largest > 0 || part.top.index >= 0) & ~0u >> (kWarp - kLanes);
    for (; knowing; knowing &= knowing - 1) {
      const int lane = __ffs(int(knowing)) - 1;
      largest += of_lane(part.sums.largest, lane);
      top = merge(top, of_lane(part.top, lane));
    }
    part.sums.largest = largest;
    part.top = top;
    return part;
  }
};

/// The sums of a thread's columns, group(0) to group(groups - 1), relative to the slice's largest, `max`; `own`: the
/// largest of each kLoaded groups.
template <class Real, class GroupOf>
__device__ __forceinline__ SliceSums sums_of(
    const GroupOf& group, int groups, const Real (&own)[kLoads], const Exponent<Real>& exponent, Real max,
    const Reference<Real>& at) {
  SliceSums found;
#pragma unroll
  for (int load = 0; load < kLoads; ++load) {
    Real sum = 0, weighted = 0;  // of terms, and of terms times exponents of two
    // Few warps: some columns are the largest, or logits are huge.
    bool with_care = __any_sync(~0u, own[load] == max || at.origin != 0);
    if (!with_care) {
#pragma unroll
      for (int g = load * kLoaded; g < (load + 1) * kLoaded; ++g) {
        if (g >= groups) break;
        const Group<Real> x = group(g);
        for (int i = 0; i < kGroup; ++i) {
          const Real y = fma(x.value[i], exponent.scale, at.offset), e = exp_base2(y);
          sum += e;
          weighted += e * y;
        }
      }
      with_care = weighted != weighted;  // 0 * -inf
    }
    if (with_care) {
      sum = weighted = 0;
#pragma unroll 1
      for (int g = load * kLoaded; g < (load + 1) * kLoaded && g < groups; ++g) {
        const Group<Real> x = group(g);
        for (int i = 0; i < kGroup; ++i) {
          const bool is_largest = x.value[i] == max;
          const Real y = exponent.of(x.value[i], at), e = is_largest ? Real(0) : exp_base2(y);
          found.largest += is_largest;
          sum += e;
          if (e > 0) weighted += e * y;
        }
      }
    }
    found.others += double(sum);
    found.weighted += double(weighted);
  }
  return found;
}

/// What the upper 24 bits of a word must be at least for noise of `needed`; a little less, whatever rounding did.
__device__ __forceinline__ uint32_t least_word(float needed) {
  if (!(needed > -3.0f)) return 0;  // no noise is lower
  const float uniform = exp_base2(-float(kLog2E) * exp_base2(-float(kLog2E) * needed));
  const float word = uniform * 16777216.0f - 16.0f;
  return word > 0 ? uint32_t(word) : 0;
}

/// The sample of a slice, for the first warp. A warp knows the best key among its lanes, and looks at noise for a logit
/// only where it might beat that: after the first few hardly ever.
template <class Real, class Element>
__device__ GumbelBest
sample_of_slice(const TokenStatisticsArguments& a, int64_t entry, const Element* logits, int begin, int end) {
  const uint64_t seed = uint64_t(a.seeds[entry]), offset = uint64_t(a.offsets[entry]);
  GumbelBest best;
  double best_of_warp = -INFINITY;
#pragma unroll 1
  for (int g = 0; g < kGroups; ++g) {
    const int column = begin + (g * kSliceThreads + int(threadIdx.x)) * kGroup;
    const Group<Real> x = load_group<Real>(logits, column, end);  // columns behind the end are -inf, and cannot win
    const double largest = double(largest_of(x)) / a.temperature;
    if (!__any_sync(~0u, !(best_of_warp - largest > kGumbelBound))) continue;
    PhiloxWords words[kGroup / 4];
#pragma unroll
    for (int q = 0; q < kGroup / 4; ++q) words[q] = philox(seed, offset, uint32_t(column / 4 + q));
    unsigned looked_at = 0;  // a bit for each column; they are looked at in their order
    while (true) {
      const uint32_t least = least_word(float(best_of_warp - largest));
      int next = kGroup;  // the first column that might win
      uint32_t word = 0;
      Real logit = 0;
#pragma unroll
      for (int i = kGroup - 1; i >= 0; --i) {
        const bool may_win = words[i / 4].word[i % 4] >> 8 >= least && x.value[i] > Real(-INFINITY);
        if (!may_win || looked_at >> i & 1) continue;
        next = i;
        word = words[i / 4].word[i % 4];
        logit = x.value[i];
      }
      if (!__any_sync(~0u, next < kGroup)) break;
      if (next < kGroup) best.offer(a, double(logit), column + next, word);
      looked_at |= (2u << next) - 1;
      best_of_warp = by_pairs(Larger())(best.key);
    }
  }
  const auto of_samples = by_pairs([](const GumbelBest& x, const GumbelBest& y) { return merge(x, y); });
  return reduce_to_first_warp<kSliceThreads>(best, of_samples);
}

/// The slice of the block that takes the calling one's place, where so many blocks run at a time. One thread asks for
/// it, so that it is on its way to the second-level cache before that block begins.
class SliceAhead {
 public:
  /// Reads which row it is of.
  __device__ SliceAhead(const TokenStatisticsArguments& a, unsigned blocks_at_a_time) {
    if (!has_bulk_copies() || threadIdx.x != kSliceThreads - kWarp) return;  // not of the warp that has most to do
    const unsigned next = blockIdx.x + blocks_at_a_time;
    slice_ = blockIdx.y + next / gridDim.x;
    if (slice_ < gridDim.y) row_ = existing_row(a, next % gridDim.x);
  }

  template <class Element>
  __device__ void prefetch(const TokenStatisticsArguments& a) const {
    if (row_ < 0) return;
    const int64_t begin = int64_t(slice_) * kSliceColumns, left = a.vocabulary - begin;
    const int columns = left < kSliceColumns ? int(left) / kGroup * kGroup : kSliceColumns;
    const Element* logits = row_pointer<Element>(a.logits, row_) + begin;
    if (is_aligned(logits) && columns > 0) bulk_prefetch(logits, columns * sizeof(Element));
  }

 private:
  unsigned slice_ = 0;
  int64_t row_ = -1;
};

/// What thread 0 knows of slice [begin, end) of an entry. kWhole: it is of kSliceColumns, and aligned.
template <bool kWhole, bool kSampled, class Element>
__device__ __forceinline__ RowStatistics<typename RealOf<Element>::type> statistics_of_slice(
    const TokenStatisticsArguments& a, int64_t entry, const Element* logits, int begin, int end,
    const SliceAhead& ahead) {
  using Real = typename RealOf<Element>::type;
  const auto column = [&](int g) { return begin + (g * kSliceThreads + int(threadIdx.x)) * kGroup; };
  const auto raw_group = [&](int g) {
    return kWhole ? load_whole(logits + column(g)) : load_raw(logits, column(g), end);
  };
  const auto group = [&](int g) { return as_numbers<Real>(raw_group(g)); };  // again: from the first cache, mostly
  const int groups = kWhole ? kGroups : (end - column(0) + kStride - 1) / kStride;  // that a thread has

  Real own[kLoads], largest = Real(-INFINITY);
#pragma unroll
  for (int load = 0; load < kLoads; ++load) {
    RawGroup<Element> raw[kLoaded];
#pragma unroll
    for (int g = 0; g < kLoaded; ++g) raw[g] = raw_group(load * kLoaded + g);
    own[load] = largest_of<Real>(raw);
    largest = fmax(largest, own[load]);
  }
  const bool some_are_suppressed = any_suppressed(a, begin, end);  // of most slices no id is
  Real max = Real(-INFINITY), may_be_chosen = largest;
  if (some_are_suppressed) {
    max = block_reduce<kSliceThreads>(largest, by_pairs(Larger()));
    if (const unsigned with_ids = groups_with_suppressed(a, begin, end)) {
      may_be_chosen = Real(-INFINITY);
#pragma unroll 1
      for (int g = 0; g < groups; ++g) {
        const Group<Real> x = group(g);
        const unsigned hidden = with_ids >> g & 1 ? suppressed_in_group(a, column(g)) : 0;
        for (int i = 0; i < kGroup; ++i)
          if (!(hidden >> i & 1)) may_be_chosen = fmax(may_be_chosen, x.value[i]);
      }
    }
  }
  const auto of_maxima = by_pairs([](const Maxima<Real>& x, const Maxima<Real>& y) { return merge(x, y); });
  const auto best = block_reduce<kSliceThreads>(Maxima<Real>{may_be_chosen}, of_maxima);
  ahead.prefetch<Element>(a);
  if (!some_are_suppressed) max = best.first;
  const Exponent<Real> exponent(1);
  Reference<Real> at = exponent.reference_at(max);
  at.offset += 1;  // exponents up to 1 instead of 0: nothing is lost that the CPU keeps, to 87.3 nats below the largest

  SlicePart<Real> part;
  part.sums = sums_of(group, groups, own, exponent, max, at);
  if (may_be_chosen >= best.second && may_be_chosen > Real(-INFINITY)) {  // hardly any thread: where the two best are
    unsigned loads = 0;
    for (int load = 0; load < kLoads; ++load) loads |= unsigned(own[load] >= best.second) << load;  // may have them
#pragma unroll 1
    for (int g = 0; g < groups; ++g) {
      if (!(loads >> g / kLoaded & 1)) continue;
      const RawGroup<Element> raw[] = {raw_group(g)};
      if (largest_of<Real>(raw) < best.second) continue;
      const Group<Real> x = as_numbers<Real>(raw[0]);
      for (int i = 0; i < kGroup; ++i)
        if (x.value[i] >= best.second && x.value[i] > part.top.second_value && !is_suppressed(a, column(g) + i))
          part.top.push(x.value[i], column(g) + i);
    }
  }
  part = reduce_to_first_warp<kSliceThreads>(part, OfSliceParts());
  GumbelBest sample;
  if (kSampled) sample = sample_of_slice<Real>(a, entry, logits, begin, end);
  RowStatistics<Real> found;
  found.top = part.top;
  found.sample = sample;
  found.sum = {double(max), part.sums.others, part.sums.weighted};
  if (found.sum.any()) {  // relative to the exponential of the largest, as it would have been added
    const Real of_largest = exponent.of(reference_of(max), at);
    const double peak = double(exp_base2(of_largest));
    found.sum.others = part.sums.others / peak + (part.sums.largest - 1);
    found.sum.weighted = (part.sums.weighted - part.sums.others * double(of_largest)) * kLn2 / peak;
  }
  return found;
}

/// Block (i, s): slice s of entry i.
template <class Element, bool kSampled>
__global__ void __launch_bounds__(kSliceThreads, kMinBlocks<Element, kSampled>) slice_statistics_kernel(
    TokenStatisticsArguments a, RowStatistics<typename RealOf<Element>::type>* slices, unsigned blocks_at_a_time) {
  let_next_kernel_begin();
  const int64_t entry = blockIdx.x, slice = blockIdx.y, row = existing_row(a, entry);
  const SliceAhead ahead(a, blocks_at_a_time);
  if (row < 0) return ahead.prefetch<Element>(a);
  const Element* logits = row_pointer<Element>(a.logits, row);
  const int begin = int(slice * kSliceColumns);
  const int end = begin + kSliceColumns < a.vocabulary ? begin + kSliceColumns : int(a.vocabulary);
  with_constant(end - begin == kSliceColumns && is_aligned(logits), [&](auto is_whole) {
    const auto found = statistics_of_slice<is_whole.value, kSampled>(a, entry, logits, begin, end, ahead);
    if (threadIdx.x == 0) slices[entry * gridDim.y + slice] = found;
  });
}

/// Block i, one warp: entries 2 i and 2 i + 1.
template <class Real>
__global__ void __launch_bounds__(kWarp)
    merge_slices_kernel(TokenStatisticsArguments a, const RowStatistics<Real>* slices, int64_t slice_count) {
  wait_for_kernel_before();
  const int64_t entry = (int64_t(blockIdx.x) * kWarp + threadIdx.x) / kMergeLanes;
  const RowStatistics<Real> row = merged_slices(a, slices, slice_count, entry, a.entries);
  if (threadIdx.x % kMergeLanes == 0 && entry < a.entries) write_entry(a, entry, row);
}

/// Writes what the entries of a canvas say: half a warp merges the slices of one, then a thread finishes it.
template <class Real>
__device__ __forceinline__ void write_entries(
    const TokenStatisticsArguments& a, const RowStatistics<Real>* slices, int64_t slice_count, int64_t begin,
    int64_t end) {
  RowStatistics<Real>* merged = shared_array<RowStatistics<Real>, kMergedEntries>();
  for (; begin < end; begin += kMergedEntries) {
    for (int64_t first = begin; first < begin + kMergedEntries && first < end; first += kMergedAtOnce) {
      const int64_t entry = first + threadIdx.x / kMergeLanes;
      const RowStatistics<Real> row = merged_slices(a, slices, slice_count, entry, end);
      if (threadIdx.x % kMergeLanes == 0) merged[entry - begin] = row;
    }
    __syncthreads();
    const int64_t own = begin + threadIdx.x;
    if (threadIdx.x < kMergedEntries && own < end) write_entry(a, own, merged[threadIdx.x]);
    __syncthreads();
  }
}

/// Block r: canvas r. Its threads merge and choose, its first warp reveals.
template <class Real>
__global__ void __launch_bounds__(kRevealThreads) select_reveal_kernel(
    TokenStatisticsArguments statistics, SelectionArguments selection, RevealArguments reveal,
    const RowStatistics<Real>* slices, int64_t slice_count) {
  wait_for_kernel_before();
  const int64_t row = blockIdx.x, end = (row + 1) * selection.width;
  write_entries(statistics, slices, slice_count, row * selection.width, end);
  select_row(BlockTeam(), selection, row);
  if (threadIdx.x < kWarp) reveal_row(WarpTeam(), reveal, row);
}

int64_t token_statistics_workspace(const TokenStatisticsArguments& a) {
  const size_t bytes = a.logits.dtype == DType::kFloat64 ? sizeof(RowStatistics<double>) : sizeof(RowStatistics<float>);
  return a.entries * slices_of(a.vocabulary) * int64_t(bytes);
}

/// Launches the slices of all entries, then finish(slices, their number), whose kernel begins early.
template <class Finish>
Status with_slices(const TokenStatisticsArguments& a, void* workspace, Stream stream, const Finish& finish) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    auto* slices = static_cast<RowStatistics<Real>*>(workspace);
    const int64_t slice_count = slices_of(a.vocabulary);
    const bool sampled = a.temperature > 0;
    const auto kernel = sampled ? slice_statistics_kernel<Element, true> : slice_statistics_kernel<Element, false>;
    const int of_multiprocessor = sampled ? kMinBlocks<Element, true> : kMinBlocks<Element, false>;
    const dim3 blocks(unsigned(a.entries), unsigned(slice_count));
    const LaunchShape shape{.blocks = blocks, .threads = kSliceThreads, .overlap = {.lets_next_begin = true}};
    const auto at_a_time = unsigned(of_multiprocessor * current_device().multiprocessors);
    const Status status = launch(kernel, shape, stream, a, slices, at_a_time);
    return status == cudaSuccess ? finish(slices, slice_count) : status;
  });
}

Status token_statistics(const TokenStatisticsArguments& a, void* workspace, Stream stream) {
  return with_slices(a, workspace, stream, [&](auto* slices, int64_t slice_count) {
    using Real = decltype(slices->top.value);
    const dim3 blocks(unsigned((a.entries + 1) / 2));
    const LaunchShape shape{.blocks = blocks, .threads = kWarp, .overlap = {.begins_early = true}};
    return launch(merge_slices_kernel<Real>, shape, stream, a, slices, slice_count);
  });
}

Status select_reveal(
    const TokenStatisticsArguments& statistics, const SelectionArguments& selection, const RevealArguments& reveal,
    void* workspace, Stream stream) {
  return with_slices(statistics, workspace, stream, [&](auto* slices, int64_t slice_count) {
    using Real = decltype(slices->top.value);
    const dim3 blocks(unsigned(reveal.batch));
    const LaunchShape shape{.blocks = blocks, .threads = kRevealThreads, .overlap = {.begins_early = true}};
    return launch(select_reveal_kernel<Real>, shape, stream, statistics, selection, reveal, slices, slice_count);
  });
}

}  // namespace cuda
}  // namespace tad
