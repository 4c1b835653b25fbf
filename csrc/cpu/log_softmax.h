// log softmax of one row at a temperature, and its gradient.
#pragma once

#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

inline int64_t logits_row(const LogSoftmaxArguments& a, int64_t entry) {
  return a.rows ? a.rows[entry] : entry;
}

template <class Real>
void softmax_sums(const LogSoftmaxArguments& a, int64_t entry, int64_t slice, SliceSums* sums) {
  RowReader<Real> reader(a.logits, logits_row(a, entry));
  write_plain(
      softmax_sum<Real>(reader, a.vocabulary, slice, rounded_inverse<Real>(1 / a.temperature), nullptr, nullptr), sums);
}

template <class Real>
void softmax_normalizer(const LogSoftmaxArguments& a, const SliceSums* slices, Real* normalizer) {
  const double b = rounded_inverse<Real>(1 / a.temperature);
  RowSum<double> row;
  for (int64_t slice = 0; slice < slices_of(a.vocabulary); ++slice)
    row = merge(row, read_plain<RowSum<double>>(slices[slice]), b);
  const double reference = reference_of(row.max);
  normalizer[0] = Real(reference + row.log_sum() / b);
  normalizer[1] = Real((reference - double(normalizer[0])) * b + row.log_sum());
}

/// Whether a result of that dtype, made from such elements, is written in halves of pairs.
template <class Real, class Element>
constexpr bool in_halves(const Element*, DType dtype) {
  return kEvenOdd<Real, Element> && dtype == DType::kBFloat16;
}

template <class Real>
void log_softmax(
    const LogSoftmaxArguments& a, int64_t entry, int64_t slice, const Real* normalizer, const MutableRows& out) {
  RowReader<Real> reader(a.logits, logits_row(a, entry));
  RowWriter<Real> writer(out, entry, a.vocabulary, false);
  const Real b = Real(1 / a.temperature), rounded = normalizer[0], rest = normalizer[1];
  for_each_block(a.vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, begin, count, [&](auto x, int64_t) {
      with_flag(in_halves<Real>(x, out.dtype), [&](auto halves) {
        const auto values = [&](int64_t i) TAD_INLINED {
          const Vector<Real> logits = halves.value ? load_in_halves<Real>(x, i) : load<Real>(x + i);
          return (logits - rounded) * b - rest;
        };
        writer.write(begin, count, values, halves.value);
      });
    });
  });
}

template <class Real>
double gradient_sum(const LogSoftmaxArguments& a, int64_t entry, int64_t slice, const Rows& grad_out) {
  constexpr int64_t kPair = 2 * Simd<Real>::kLanes;
  RowReader<Real> reader(grad_out, entry);
  double total = 0;
  for_each_block(a.vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, begin, count, [&](auto g, int64_t) {
      Vector<Real> sums[4] = {};
      int64_t i = 0;
      for (; i + 2 * kPair <= count; i += 2 * kPair)
        for (int k = 0; k < 2; ++k) {
          prefetch_next(g + i + k * kPair, kBlock, kPair);
          sums[2 * k] += load_half<0, Real>(g + i + k * kPair);
          sums[2 * k + 1] += load_half<1, Real>(g + i + k * kPair);
        }
      for (; i < count; ++i) total += from_storage<double>(g[i]);  // not what pads the last block
      total += double(horizontal_sum<Real>(tree_sum<Real, 4>(sums)));
    });
  });
  return total;
}

template <class Real>
void log_softmax_gradient(
    const LogSoftmaxArguments& a, int64_t entry, int64_t slice, const Real* normalizer, const Rows& grad_out,
    double grad_sum, const MutableRows& gradient, int64_t gradient_row, bool add) {
  constexpr int64_t kLanes = Simd<Real>::kLanes, kPair = 2 * kLanes;
  RowReader<Real> reader(a.logits, logits_row(a, entry)), grad_reader(grad_out, entry);
  RowWriter<Real> writer(gradient, gradient_row, a.vocabulary, add);
  const Real b = Real(1 / a.temperature), log2_scale = Real(kLog2E / a.temperature), reference = normalizer[0];
  const Real scale = Real(grad_sum / a.temperature / std::exp(double(normalizer[1])));
  for_each_block(a.vocabulary, slice, [&](int64_t begin, int64_t count) {
    visit_block(reader, grad_reader, begin, count, [&](auto x, auto g, int64_t length) {
      alignas(64) Real values[kBlock];
      for_each_halves<Real, kSide>(length, [&](int64_t i, auto pairs, auto half) TAD_INLINED {
        constexpr int kCount = pairs.value, kHalf = half.value;
        Vector<Real> p[kCount];
        for (int k = 0; k < kCount; ++k) p[k] = load_half<kHalf, Real>(x + i + k * kPair) - reference;
        exp2_scaled<kCount>(p, log2_scale);
        for (int k = 0; k < kCount; ++k) {
          const Vector<Real> upstream = load_half<kHalf, Real>(g + i + k * kPair);
          store(values + i + k * kPair + kHalf * kLanes, upstream * b - p[k] * scale);
        }
      });
      writer.write(
          begin, count, [&](int64_t i) TAD_INLINED { return load<Real>(values + i); },
          in_halves<Real>(x, gradient.dtype));
    });
  });
}

}  // namespace TAD_ISA
}  // namespace tad
