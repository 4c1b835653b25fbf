// log softmax of chosen rows at a temperature, and its gradient. One block works on one row, in two passes. The second
// one finds the row in the L2 cache only where the rows that are worked on at a time fit into it: two or three for each
// multiprocessor, which is more than the 50 MB of an H200 where a row has 100,000 columns.
#include "gradient_rows.cuh"
#include "row_sums.cuh"

namespace tad {
namespace cuda {

/// Block i: row i of the result, out = (x - normalizer[0]) / T - normalizer[1], where normalizer[0] is T * logsumexp(x
/// / T) rounded and normalizer[1] what rounding left. NaN for a row that is out of range.
template <class Element>
__global__ void __launch_bounds__(kRowThreads<Element>)
    log_softmax_kernel(LogSoftmaxArguments a, MutableRows out, typename RealOf<Element>::type* normalizers) {
  using Real = typename RealOf<Element>::type;
  const int64_t entry = blockIdx.x, row = existing_row(a.logits, a.rows, entry);
  const MutableAnyRow target(out, entry);
  const Real b = Real(1 / a.temperature);
  const Element* source = row_pointer<Element>(a.logits, row < 0 ? 0 : row);
  Real rounded = Real(NAN), rest = Real(NAN);
  if (row >= 0) {
    const RowSum<double> sums = softmax_sum<Real>(source, a.vocabulary, 1 / a.temperature);
    const double reference = reference_of(sums.max);
    rounded = Real(reference + sums.log_sum() * a.temperature);
    rest = Real((reference - double(rounded)) / a.temperature + sums.log_sum());
  }
  if (threadIdx.x == 0) {
    normalizers[2 * entry] = rounded;
    normalizers[2 * entry + 1] = rest;
  }
  for_each_group(0, a.vocabulary, [&](int64_t column) {
    Group<Real> x{};
    if (row >= 0) x = load_group<Real>(source, column, a.vocabulary);
    for (int i = 0; i < kGroup; ++i) x.value[i] = (x.value[i] - rounded) * b - rest;
    target.store(x, column, a.vocabulary);
  });
}

/// The sum of a row, for every thread of the block.
template <class Real, int kThreads>
__device__ double sum_of(const AnyRow& row, int64_t columns) {
  double sum = 0;
  for_each_group(0, columns, [&](int64_t column) {
    const Group<Real> g = row.load<Real>(column, columns);
    Real part = 0;
    for (int i = 0; i < kGroup; ++i)
      if (column + i < columns) part += g.value[i];
    sum += double(part);
  });
  return block_reduce<kThreads>(sum, [](double x, double y) { return x + y; });
}

/// Block r: row r of the gradient, (g - softmax(x / T) * sum(g)) / T, added up over the entries that name the row.
template <class Element>
__global__ void __launch_bounds__(kRowThreads<Element>, kRowBlocks<Element>) log_softmax_gradient_kernel(
    LogSoftmaxArguments a, const typename RealOf<Element>::type* normalizers, Rows grad_out, EntriesByRow by_row,
    MutableRows gradient) {
  using Real = typename RealOf<Element>::type;
  const int64_t row = blockIdx.x;
  Element* target = row_pointer<Element>(gradient, row);
  const NamedBy named = entries_of_row(by_row, a.entries, row);
  if (named.first == named.last) fill_row(Real(0), target, a.vocabulary, /*add=*/false);

  const Real b = Real(1 / a.temperature), log2_scale = Real(double(b) * kLog2E);
  const Element* source = row_pointer<Element>(a.logits, row);
  for (int64_t position = named.first; position < named.last; ++position) {
    const int64_t entry = entry_at(by_row, position);
    const AnyRow upstream(grad_out, entry);
    const double total = sum_of<Real, kRowThreads<Element>>(upstream, a.vocabulary);
    const Real reference = normalizers[2 * entry];
    const Real scale = Real(total * double(b) / std::exp(double(normalizers[2 * entry + 1])));
    for_each_group(0, a.vocabulary, [&](int64_t column) {
      const Group<Real> x = load_group<Real>(source, column, a.vocabulary);
      Group<Real> g = upstream.load<Real>(column, a.vocabulary);
      for (int i = 0; i < kGroup; ++i)
        g.value[i] = g.value[i] * b - exp_base2((x.value[i] - reference) * log2_scale) * scale;
      store_group(g, target, column, a.vocabulary, position > named.first);
    });
  }
}

Status log_softmax(const LogSoftmaxArguments& a, const MutableRows& out, void* normalizers, Stream stream) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    return launch(
        log_softmax_kernel<Element>, dim3(unsigned(a.entries)), kRowThreads<Element>, stream, a, out,
        static_cast<Real*>(normalizers));
  });
}

Status log_softmax_gradient(
    const LogSoftmaxArguments& a, const void* normalizers, const Rows& grad_out, const EntriesByRow& by_row,
    const MutableRows& gradient, Stream stream) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    return launch(
        log_softmax_gradient_kernel<Element>, dim3(unsigned(gradient.row_count)), kRowThreads<Element>, stream, a,
        static_cast<const Real*>(normalizers), grad_out, by_row, gradient);
  });
}

}  // namespace cuda
}  // namespace tad
