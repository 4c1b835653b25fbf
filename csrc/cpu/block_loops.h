// Loops over the vectors of a block, several side by side.
#pragma once

#include "simd.h"

namespace tad {
namespace TAD_ISA {

/// Vectors that go through the exponential side by side: fewer of those that only processors which look far ahead have.
constexpr int kSide = TAD_VECTOR_BYTES == 64 ? 4 : 6;

/// Asks for what the next block will read where these `elements` of this one are, a block of `length` before it: its
/// first reader does little else, and would wait for the memory.
template <class Element>
TAD_ALWAYS_INLINE void prefetch_next(const Element* elements, int64_t length, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(Element);
  for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(elements + length + i);
}

/// A constant as an argument.
template <int kValue>
struct Constant {
  static constexpr int value = kValue;
};

constexpr Constant<1> kYes;
constexpr Constant<0> kNo;

/// visit(kYes) or visit(kNo).
template <class Visit>
TAD_ALWAYS_INLINE void with_flag(bool flag, const Visit& visit) {
  if (flag)
    visit(kYes);
  else
    visit(kNo);
}

/// Calls visit(i, count) with constant counts: for kCount vectors at a time, then for single ones.
template <class Real, int kCount, class Visit>
TAD_ALWAYS_INLINE void for_each_vectors(int64_t length, const Visit& visit) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  int64_t i = 0;
  for (; i + kCount * kLanes <= length; i += kCount * kLanes) visit(i, Constant<kCount>());
  for (; i < length; i += kLanes) visit(i, Constant<1>());
}

/// Calls visit(i, count, half) with constant counts and halves: for one half of kCount pairs of vectors at a time, then
/// for the other, in the end for those of single pairs.
template <class Real, int kCount, class Visit>
TAD_ALWAYS_INLINE void for_each_halves(int64_t length, const Visit& visit) {
  constexpr int64_t kPair = 2 * Simd<Real>::kLanes;
  int64_t i = 0;
  for (; i + kCount * kPair <= length; i += kCount * kPair) {
    visit(i, Constant<kCount>(), Constant<0>());
    visit(i, Constant<kCount>(), Constant<1>());
  }
  for (; i < length; i += kPair) {
    visit(i, Constant<1>(), Constant<0>());
    visit(i, Constant<1>(), Constant<1>());
  }
}

/// The sum of some vectors, as a tree: few accumulators, which the registers then have room for.
template <class Real, int kCount>
inline Vector<Real> tree_sum(const Vector<Real>* v) {
  if constexpr (kCount == 1) return v[0];
  if constexpr (kCount > 1) return tree_sum<Real, kCount / 2>(v) + tree_sum<Real, kCount - kCount / 2>(v + kCount / 2);
}

/// The sum of some vectors' products: of equal terms, added to a sum one after the other, float32 would lose more.
template <class Real, int kCount>
TAD_ALWAYS_INLINE Vector<Real> dot(const Vector<Real>* a, const Vector<Real>* b) {
  Vector<Real> sum = a[0] * b[0];
  for (int k = 1; k < kCount; ++k) sum += a[k] * b[k];
  return sum;
}

/// The largest elements of some vectors, as a tree.
template <class Real, int kCount>
inline Vector<Real> tree_max(const Vector<Real>* v) {
  if constexpr (kCount == 1) return v[0];
  if constexpr (kCount > 1)
    return maximum(tree_max<Real, kCount / 2>(v), tree_max<Real, kCount - kCount / 2>(v + kCount / 2));
}

}  // namespace TAD_ISA
}  // namespace tad
