// The CPU backend's kernels as a table of functions, one table per instruction set, the best one chosen at run time.
//
// A kernel works on one slice of one row; where sums are needed, another merges a row's slices in order. Slices are a
// function of the vocabulary alone, so the bits do not depend on who computes which of them.
#pragma once

#include <vector>

#include "../common/arguments.h"

namespace tad {

constexpr int64_t kBlock = 1536;  // elements; a multiple of every vector width, and of six pairs of vectors
constexpr int64_t kSlice = 8 * kBlock;

inline int64_t slices_of(int64_t vocabulary) {
  return (vocabulary + kSlice - 1) / kSlice;
}

/// What is known about a slice, or about a whole row once its slices are merged: the accumulators of row_math.h. Plain
/// bytes, because those are other types for every instruction set.
struct SliceSums {
  double numbers[6];
};
struct SliceStatistics {
  double numbers[10];
};

/// The exponentials of one row (or pair of rows) on their way from its sums to its gradient, so that each is computed
/// once: relative to a reference per block. Those of a bfloat16 row, or pair, stand as its elements are read: of each
/// pair of vectors the even ones, then the odd ones.
template <class Real>
struct Exponentials {
  Real *student, *teacher;                        // one per column, up to whole blocks
  Real *student_references, *teacher_references;  // one per block
};

template <class Real>
struct KernelsOf {
  /// Sums of a near entry's student row, of a distant entry's pair of rows. `kept` may be null.
  void (*tad_sums)(
      const TadLossArguments&, int64_t entry, int64_t slice, const Exponentials<Real>* kept, SliceSums* sums);

  /// The whole row's sums into the first slice's, and the entry's loss (not weighted; KL still to be multiplied by
  /// temperature^2).
  double (*tad_loss)(const TadLossArguments&, int64_t entry, SliceSums* slices);

  /// Writes (or adds) scale * d loss / d student row, given the whole row's sums. The logits are not read any more: the
  /// gradient may take the place of the student's.
  void (*tad_gradient)(
      const TadLossArguments&, int64_t entry, int64_t slice, const Exponentials<Real>& kept, const SliceSums& row,
      double scale, const MutableRows& gradient, int64_t gradient_row, bool add);

  void (*softmax_sums)(const LogSoftmaxArguments&, int64_t entry, int64_t slice, SliceSums* sums);

  /// T * logsumexp(x / T) in two parts, a rounded number and, in units of the result, what rounding left.
  void (*softmax_normalizer)(const LogSoftmaxArguments&, const SliceSums* slices, Real* normalizer);

  /// out = (x - normalizer[0]) / T - normalizer[1].
  void (*log_softmax)(
      const LogSoftmaxArguments&, int64_t entry, int64_t slice, const Real* normalizer, const MutableRows& out);

  /// The sum of a slice of row `entry` of the result's gradient.
  double (*gradient_sum)(const LogSoftmaxArguments&, int64_t entry, int64_t slice, const Rows& grad_out);

  /// Writes (or adds) d/dx = (g - softmax(x / T) * sum(g)) / T, given the whole row's sum(g).
  void (*log_softmax_gradient)(
      const LogSoftmaxArguments&, int64_t entry, int64_t slice, const Real* normalizer, const Rows& grad_out,
      double grad_sum, const MutableRows& gradient, int64_t gradient_row, bool add);

  void (*zero)(const MutableRows&, int64_t vocabulary, int64_t row, int64_t slice);

  /// `before`: the statistics of the slice before, made with those of the one before it, or null. It saves looking at
  /// what cannot win, and changes no row's statistics.
  void (*slice_statistics)(
      const TokenStatisticsArguments&, int64_t entry, int64_t slice, const SliceStatistics* before, SliceStatistics*);
  void (*token_statistics)(const TokenStatisticsArguments&, int64_t entry, const SliceStatistics* slices);

  /// A whole row. `workspace` has room for one in whole blocks.
  void (*truncate_logits)(const TruncationArguments&, int64_t row, Real* workspace);
};

struct CpuKernels {
  const char* instruction_set;
  KernelsOf<float> float32;
  KernelsOf<double> float64;

  template <class Real>
  const KernelsOf<Real>& of() const;
};

template <>
inline const KernelsOf<float>& CpuKernels::of<float>() const {
  return float32;
}
template <>
inline const KernelsOf<double>& CpuKernels::of<double>() const {
  return float64;
}

extern const CpuKernels kPortableKernels;
#if defined(__x86_64__)
extern const CpuKernels kAvx2Kernels;
extern const CpuKernels kAvx512Kernels;
#endif

/// The tables this processor can run, the best one first.
std::vector<const CpuKernels*> runnable_cpu_kernels();

/// The best table this processor can run. The environment variable TAD_CPU_ISA (portable, avx2, avx512) chooses a
/// lesser one; a name that is unknown or that this processor cannot run throws std::invalid_argument.
const CpuKernels& cpu_kernels();

}  // namespace tad
