// log softmax of one row at a temperature, and its gradient.
#pragma once

#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

/// out = (x - T * logsumexp(x / T)) / T. `normalizer` gets T * logsumexp in two parts, a rounded number and, in units
/// of out, what rounding left: out = (x - normalizer[0]) / T - normalizer[1].
template <class Real>
void log_softmax_entry(const LogSoftmaxArguments& a, int64_t entry, const MutableRows& out, Real* normalizer) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  RowReader<Real> reader(a.logits, a.rows ? a.rows[entry] : entry);
  RowWriter<Real> writer(out, entry, false);
  const Real b = Real(1 / a.temperature);
  const RowSum<double> row = softmax_sum(reader, a.vocabulary, b);
  const double reference = reference_of(row.max);
  const Real rounded = Real(reference + row.log_sum() / double(b));
  const Real rest = Real((reference - double(rounded)) * double(b) + row.log_sum());
  normalizer[0] = rounded;
  normalizer[1] = rest;
  for_each_block(a.vocabulary, [&](int64_t begin, int64_t count) {
    const Real* x = reader.block(begin, count);
    Real* y = writer.block();
    for (int64_t i = 0; i < padded<Real>(count); i += kLanes) store(y + i, (load(x + i) - rounded) * b - rest);
    writer.finish(begin, count);
  });
}

/// Writes (or adds) d/dx = (g - softmax(x / T) * sum(g)) / T.
template <class Real>
void log_softmax_gradient_entry(
    const LogSoftmaxArguments& a, int64_t entry, const Real* normalizer, const Rows& grad_out,
    const MutableRows& gradient, int64_t gradient_row, bool add) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  RowReader<Real> reader(a.logits, a.rows ? a.rows[entry] : entry);
  RowReader<Real> grad_reader(grad_out, entry);
  RowWriter<Real> writer(gradient, gradient_row, add);
  const Real b = Real(1 / a.temperature);
  double total = 0;
  for_each_block(a.vocabulary, [&](int64_t begin, int64_t count) {
    const Real* g = grad_reader.block(begin, count);
    Vector<Real> sum{};
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) sum += load(g + i);
    for (; i < count; ++i) total += g[i];
    total += horizontal_sum<Real>(sum);
  });
  const Real log2_scale = Real(double(b) * kLog2E);
  const Real scale = Real(total * double(b) / std::exp(double(normalizer[1])));
  for_each_block(a.vocabulary, [&](int64_t begin, int64_t count) {
    const Real* x = reader.block(begin, count);
    const Real* g = grad_reader.block(begin, count);
    Real* out = writer.block();
    for (int64_t i = 0; i < padded<Real>(count); i += kLanes) {
      const Vector<Real> p = exp2(exponent(x + i, normalizer[0], log2_scale));
      store(out + i, load(g + i) * b - p * scale);
    }
    writer.finish(begin, count);
  });
}

}  // namespace TAD_ISA
}  // namespace tad
