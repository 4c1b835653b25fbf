// log softmax of one row at a temperature, and its gradient.
#pragma once

#include "row_sums.h"

namespace tad {
namespace TAD_ISA {

/// out = x / T - logsumexp(x / T). `normalizer` gets {max, log sum exp((x - max) / T)}.
template <class Real>
void log_softmax_entry(const LogSoftmaxArguments& a, int64_t entry, const MutableRows& out, Real* normalizer) {
  constexpr int64_t kLanes = Simd<Real>::kLanes;
  RowReader<Real> reader(a.logits, a.rows ? a.rows[entry] : entry);
  RowWriter<Real> writer(out, entry, false);
  const Real b = Real(1 / a.temperature);
  const RowSum<double> row = softmax_sum(reader, a.vocabulary, b);
  const Real max = Real(row.max), log_sum = Real(row.log_sum());
  normalizer[0] = max;
  normalizer[1] = log_sum;
  for_each_block(a.vocabulary, [&](int64_t begin, int64_t count) {
    const Real* x = reader.block(begin, count);
    Real* y = writer.block(begin, count);
    for (int64_t i = 0; i < padded<Real>(count); i += kLanes) store(y + i, (load(x + i) - max) * b - log_sum);
    writer.finish(y, begin, count);
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
  const Real scale = Real(total) * b;
  for_each_block(a.vocabulary, [&](int64_t begin, int64_t count) {
    const Real* x = reader.block(begin, count);
    const Real* g = grad_reader.block(begin, count);
    Real* out = writer.block(begin, count);
    for (int64_t i = 0; i < padded<Real>(count); i += kLanes) {
      const Vector<Real> p = exp_nonpositive((load(x + i) - normalizer[0]) * b - normalizer[1]);
      store(out + i, load(g + i) * b - p * scale);
    }
    writer.finish(out, begin, count);
  });
}

}  // namespace TAD_ISA
}  // namespace tad
