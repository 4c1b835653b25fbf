// Reductions over a warp, a block and a cluster of blocks. The order is fixed by the numbers of threads and blocks, so
// results have the same bits run after run.
#pragma once

#include <cstring>

#include "platform.cuh"

namespace tad {
namespace cuda {

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

/// The value of the lane whose number differs in the bits of `mask`.
template <class T>
__device__ __forceinline__ T shuffle_xor(const T& value, int mask) {
  return shuffle_words(value, [&](uint32_t word) { return __shfl_xor_sync(~0u, word, mask); });
}

/// A lane's value, the same lane's for all.
template <class T>
__device__ __forceinline__ T of_lane(const T& value, int lane) {
  return shuffle_words(value, [&](uint32_t word) { return __shfl_sync(~0u, word, lane); });
}

/// The first lane's value, of which the compiler then knows that it is the whole warp's: it has registers for such.
template <class T>
__device__ __forceinline__ T of_first_lane(const T& value) {
  return of_lane(value, 0);
}

// What follows tells how the values of kLanes lanes, a power of two, become one, which every one of them gets. Other
// lanes have values of their own, or repeat these, as those of a block of fewer warps. A T() changes nothing.

template <int kLanes>
struct Lanes {
  static constexpr int kCount = kLanes;
};

/// By a merge(a, b) that commutes to the last bit, as sums and selections do.
template <class Merge>
struct ByPairs {
  Merge merge;

  template <class T, int kLanes = kWarp>
  __device__ __forceinline__ T operator()(T value, Lanes<kLanes> = {}) const {
    for (int mask = kLanes / 2; mask > 0; mask /= 2) value = merge(value, shuffle_xor(value, mask));
    return value;
  }
};
template <class Merge>
__device__ __forceinline__ ByPairs<Merge> by_pairs(const Merge& merge) {
  return {merge};
}

struct Larger {
  template <class Real>
  __device__ __forceinline__ Real operator()(Real a, Real b) const {
    return a > b ? a : b;
  }
};
struct Plus {
  __device__ __forceinline__ double operator()(double a, double b) const { return a + b; }
};

/// The largest of a warp's numbers, none of which is NaN. As integers, which a warp compares with one instruction, they
/// are in the same order once the lower bits of negative ones are the other way round.
__device__ __forceinline__ float largest_of_warp(float x) {
  const auto in_order = [](int bits) { return bits < 0 ? bits ^ 0x7fffffff : bits; };
  const int largest = __reduce_max_sync(~0u, in_order(int(float_to_bits(x))));
  return bits_to_float(uint32_t(in_order(largest)));
}
__device__ __forceinline__ double largest_of_warp(double x) {
  return by_pairs(Larger())(x);
}

// ---- a block ------------------------------------------------------------------------------------------------------

enum SharedUse { kOfWarps = 1, kOfBlocks, kResult };

/// Each warp's values as one, by warp, for all threads of a block of kThreads, a power of two of warps.
template <int kThreads, class T, class OfWarp>
__device__ __forceinline__ const T* values_of_warps(const T& value, const OfWarp& of_warp) {
  constexpr int kWarps = kThreads / kWarp;
  static_assert(kWarps <= kWarp && (kWarps & (kWarps - 1)) == 0);
  T* scratch = shared_array<T, kWarps, kOfWarps>();
  const T of_lanes = of_warp(value, Lanes<kWarp>());
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = of_lanes;
  __syncthreads();
  return scratch;
}

/// Those as one, for every lane of a warp.
template <int kThreads, class T, class OfWarp>
__device__ __forceinline__ T of_all_warps(const T* of_warps, const OfWarp& of_warp) {
  constexpr int kWarps = kThreads / kWarp;
  return of_warp(of_warps[threadIdx.x % kWarps], Lanes<kWarps>());
}

/// All threads' values as one, for every thread. Between two calls with the same T there must be a barrier.
template <int kThreads, class T, class OfWarp>
__device__ __forceinline__ T block_reduce(const T& value, const OfWarp& of_warp) {
  return of_all_warps<kThreads>(values_of_warps<kThreads>(value, of_warp), of_warp);
}

/// The same for the first warp alone; the others get something else, and need not wait for it.
template <int kThreads, class T, class OfWarp>
__device__ __forceinline__ T reduce_to_first_warp(const T& value, const OfWarp& of_warp) {
  const T* of_warps = values_of_warps<kThreads>(value, of_warp);
  return threadIdx.x < kWarp ? of_all_warps<kThreads>(of_warps, of_warp) : value;
}

// ---- a cluster ----------------------------------------------------------------------------------------------------

/// What one block sends to another, of any type.
struct alignas(16) Slot {
  unsigned char bytes[48];
};

/// The calling block's cluster, whose blocks share the columns of a row and reduce together. All of them must make the
/// same calls. Made once at a kernel's beginning; leave() comes last.
class Cluster {
 public:
  __device__ Cluster() {
    if (size() == 1) {
      rounds_ = 1;  // nobody is waited for
      return;
    }
    if (threadIdx.x < 2) mbarrier_init(barriers() + threadIdx.x);
    cluster_arrive();  // until all have, a peer's shared memory may not be there yet
  }

  // Asked for again and again: two registers less.
  __device__ int rank() const { return cluster_rank(); }
  __device__ int size() const { return cluster_size(); }

  /// finish(the values of all threads of all blocks as one), which the first warp of every block works out, for every
  /// thread, until the next reduction. A block sends its own value to all of them, and waits for theirs: when they have
  /// come nobody needs it any more. Meanwhile the other warps call meanwhile(), and what that writes is there for all
  /// threads, too.
  template <int kThreads, class T, class OfWarp, class Finish, class Meanwhile>
  __device__ const auto& reduce(T value, const OfWarp& of_warp, const Finish& finish, const Meanwhile& meanwhile) {
    static_assert(kThreads > kWarp);  // or nobody has time
    auto* result = shared_array<decltype(finish(value)), 1, kResult>();
    const T* of_warps = values_of_warps<kThreads>(value, of_warp);
    if (rounds_ == 0) cluster_wait();
    if (threadIdx.x < kWarp) {
      value = of_all_warps<kThreads>(of_warps, of_warp);
      if (size() > 1) value = of_blocks(value, of_warp);
      const auto of_all = finish(value);
      if (threadIdx.x == 0) *result = of_all;
    } else {
      meanwhile();
    }
    ++rounds_;
    __syncthreads();
    return *result;
  }

  template <int kThreads, class T, class OfWarp, class Finish>
  __device__ const auto& reduce(const T& value, const OfWarp& of_warp, const Finish& finish) {
    return reduce<kThreads>(value, of_warp, finish, [] {});
  }
  template <int kThreads, class T, class OfWarp>
  __device__ const T& reduce(const T& value, const OfWarp& of_warp) {
    return reduce<kThreads>(value, of_warp, [](const T& whole) { return whole; });
  }

  __device__ void leave() {
    if (rounds_ == 0) cluster_wait();
  }

 private:
  /// The blocks' values as one, for every lane of a warp whose first lanes have this block's.
  template <class T, class OfWarp>
  __device__ T of_blocks(const T& value, const OfWarp& of_warp) const {
    // Two sets, used in turn. Nobody sends to one again before it has got what this block sends to the other one, and
    // so never before this block has read the first.
    static_assert(sizeof(T) <= sizeof(Slot) && alignof(T) <= alignof(Slot));
    const int set = rounds_ % 2, lane = int(threadIdx.x);
    Slot* of_set = shared_array<Slot, 2 * kMaxClusterBlocks, kOfBlocks>() + set * kMaxClusterBlocks;
    T* slots = reinterpret_cast<T*>(of_set);
    MBarrier* barrier = barriers() + set;
    if (lane == 0) mbarrier_expect(barrier, size() * sizeof(T));
    if (lane < size()) send_to_block(lane, slots + rank(), value, barrier);
    mbarrier_wait_for_blocks(barrier, /*parity=*/rounds_ / 2 % 2);
    const auto merged = [&](auto lanes) {
      const int slot = int(threadIdx.x % decltype(lanes)::kCount);
      return of_warp(slot < size() ? slots[slot] : T(), lanes);
    };
    return size() > kPortableClusterBlocks ? merged(Lanes<kMaxClusterBlocks>())
                                           : merged(Lanes<kPortableClusterBlocks>());
  }

  __device__ static MBarrier* barriers() { return shared_array<MBarrier, 2, kOfBlocks>(); }

  unsigned rounds_ = 0;
};

}  // namespace cuda
}  // namespace tad
