// Reductions over a warp, a block and a cluster of blocks. The order is fixed by the numbers of threads and blocks, so
// results have the same bits run after run.
#pragma once

#include <cstring>

#include "platform.cuh"

#include "../common/row_math.h"

namespace tad {
namespace cuda {

constexpr int kMaxClusterBlocks = 8;

// ---- a warp -------------------------------------------------------------------------------------------------------

/// A value as 32-bit words, which is what shuffles move.
template <class T, class Shuffle>
__device__ __forceinline__ T shuffle_words(const T& value, const Shuffle& shuffle) {
  static_assert(sizeof(T) % sizeof(uint32_t) == 0);
  constexpr int kWords = sizeof(T) / sizeof(uint32_t);
  uint32_t words[kWords];
  memcpy(words, &value, sizeof(T));
  for (int i = 0; i < kWords; ++i) words[i] = shuffle(words[i]);
  T other;
  memcpy(&other, words, sizeof(T));
  return other;
}

/// The value of the lane `offset` further up (its own where there is none).
template <class T>
__device__ __forceinline__ T shuffle_down(const T& value, int offset) {
  return shuffle_words(value, [&](uint32_t word) { return __shfl_down_sync(~0u, word, offset); });
}

/// The value of the lane whose number differs in the bits of `mask`.
template <class T>
__device__ __forceinline__ T shuffle_xor(const T& value, int mask) {
  return shuffle_words(value, [&](uint32_t word) { return __shfl_xor_sync(~0u, word, mask); });
}

/// Lane 0 gets all lanes' values merged, in the fixed order 0, 16, 8, 24, 4, ..., on which no more than the last bits
/// of a sum may depend.
template <class T, class Merge>
__device__ __forceinline__ T warp_reduce(T value, const Merge& merge) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value = merge(value, shuffle_down(value, offset));
  return value;
}

// What follows tells a block how the values of a warp's lanes become one, which every lane gets. A T() changes nothing.

/// By a merge(a, b) that commutes to the last bit, as sums and selections do.
template <class Merge>
struct ByPairs {
  Merge merge;

  template <class T>
  __device__ __forceinline__ T operator()(T value) const {
    for (int mask = kWarp / 2; mask > 0; mask /= 2) value = merge(value, shuffle_xor(value, mask));
    return value;
  }
};
template <class Merge>
__device__ __forceinline__ ByPairs<Merge> by_pairs(const Merge& merge) {
  return {merge};
}

struct Larger {
  __device__ __forceinline__ double operator()(double a, double b) const { return a > b ? a : b; }
};
struct Plus {
  __device__ __forceinline__ double operator()(double a, double b) const { return a + b; }
};

/// Sums relative to a maximum, at inverse temperature b. The maxima come first, then each lane moves its own sums to
/// the largest, and these only add: one exponential instead of one at every step. `weighted` is not used.
struct OfRowSums {
  double b;

  __device__ __forceinline__ RowSum<double> operator()(const RowSum<double>& part) const {
    const double max = by_pairs(Larger())(part.max), shift = shift_to(max, part, b);
    RowSum<double> sum = rebase(part, max, shift, shift);
    sum.sum = by_pairs(Plus())(sum.sum);
    sum.weighted = 0;
    return sum;
  }
};
/// The same where the largest element of all stands apart: that of the first lane that has it.
struct OfPeakedSums {
  __device__ __forceinline__ PeakedSum<double> operator()(const PeakedSum<double>& part) const {
    const double max = by_pairs(Larger())(part.max);
    const unsigned highest = __ballot_sync(~0u, part.max == max), lower = (1u << threadIdx.x % kWarp) - 1;
    RowSum<double> sum = part.whole();
    if (part.max == max && !(highest & lower)) sum.sum = part.others;
    const double shift = shift_to(max, sum, 1.0);
    sum = rebase(sum, max, shift, shift);
    return {max, by_pairs(Plus())(sum.sum), by_pairs(Plus())(sum.weighted)};
  }
};
struct OfDivergenceSums {
  double b;

  __device__ __forceinline__ DivergenceSum<double> operator()(const DivergenceSum<double>& part) const {
    const double student_max = by_pairs(Larger())(part.student.max), teacher_max = by_pairs(Larger())(part.teacher.max);
    DivergenceSum<double> sum = rebase(part, student_max, teacher_max, b);
    sum.student.sum = by_pairs(Plus())(sum.student.sum);
    sum.teacher.sum = by_pairs(Plus())(sum.teacher.sum);
    sum.teacher.weighted = by_pairs(Plus())(sum.teacher.weighted);
    return sum;
  }
};

// ---- a block ------------------------------------------------------------------------------------------------------

enum SharedUse { kOfWarps = 1, kOfBlocks };

/// Every thread of a block of kThreads, a multiple of 32, gets all threads' values as one.
template <int kThreads, class T, class OfWarp>
__device__ __forceinline__ T block_reduce(T value, const OfWarp& of_warp) {
  constexpr int kWarps = kThreads / kWarp;
  static_assert(kWarps <= kWarp);
  T* scratch = shared_array<T, kWarps, kOfWarps>();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  value = of_warp(value);
  __syncthreads();  // the result of an earlier reduction may still be read
  if (lane == 0) scratch[warp] = value;
  __syncthreads();
  return of_warp(lane < kWarps ? scratch[lane] : T());  // in every warp, which saves handing the result around
}

// ---- a cluster ----------------------------------------------------------------------------------------------------

/// The calling block's cluster, whose blocks share the columns of a row and reduce together. All of them must make the
/// same calls. Made once at a kernel's beginning; leave() comes last.
class Cluster {
 public:
  __device__ Cluster() : rank_(cluster_rank()), size_(cluster_size()) {
    if (size_ > 1) cluster_arrive_relaxed();  // until all have, a peer's shared memory may not be there yet
  }

  __device__ int rank() const { return rank_; }
  __device__ int size() const { return size_; }

  /// Every thread of every block gets all their values as one. A block writes its own into each of the others, so that
  /// after one barrier nobody needs them any more.
  template <int kThreads, class T, class OfWarp>
  __device__ T reduce(T value, const OfWarp& of_warp) {
    value = block_reduce<kThreads>(value, of_warp);
    if (size_ == 1) return value;
    // Two sets, used in turn: whoever is late still reads the other one.
    T* slots = shared_array<T, 2 * kMaxClusterBlocks, kOfBlocks>() + rounds_ % 2 * kMaxClusterBlocks;
    if (rounds_ == 0) cluster_wait();
    if (int(threadIdx.x) < size_) *in_block(slots + rank_, int(threadIdx.x)) = value;
    cluster_arrive();
    cluster_wait();
    ++rounds_;
    const int lane = threadIdx.x % kWarp;
    return of_warp(lane < size_ ? slots[lane] : T());
  }

  __device__ void leave() {
    if (size_ > 1 && rounds_ == 0) cluster_wait();
  }

 private:
  int rank_, size_;
  int rounds_ = 0;
};

}  // namespace cuda
}  // namespace tad
