// log softmax of chosen rows at a temperature, and its gradient: a cluster of blocks works on a row, and keeps what it
// needs twice (forward: the logits, backward: the result's gradient).
#include "gradient_rows.cuh"
#include "resident.cuh"
#include "row_sums.cuh"

namespace tad {
namespace cuda {

/// Cluster i: row i of the result, out = (x - normalizer[0]) / T - normalizer[1], where normalizer[0] is T *
/// logsumexp(x / T) rounded and normalizer[1] what rounding left. NaN for a row that is out of range.
template <class Element, bool kResident>
__global__ void __launch_bounds__(kRowThreads<Element>, kRowBlocks<Element, kResident>)
    log_softmax_kernel(LogSoftmaxArguments a, MutableRows out, typename RealOf<Element>::type* normalizers) {
  using Real = typename RealOf<Element>::type;
  Cluster cluster;
  const int columns = int(a.vocabulary);
  const ColumnRange range = columns_of_block(columns, cluster.rank(), cluster.size());
  const Exponent<Real> exponent(1 / a.temperature);
  auto* kept = static_cast<RawGroup<Element>*>(kResident ? dynamic_shared_memory() : nullptr);

  for (int64_t entry = blockIdx.x / cluster.size(); entry < a.entries; entry += gridDim.x / cluster.size()) {
    const int64_t row = existing_row(a.logits, a.rows, entry);
    const Element* data = row_pointer<Element>(a.logits, row < 0 ? 0 : row);
    const Row<Element, kResident> source{data, columns, range, kept};
    const MutableAnyRow target(out, entry);
    const Real b = Real(1 / a.temperature);
    Real rounded = Real(NAN), rest = Real(NAN);
    if (row >= 0) {
      RowSum<double> part;
      for_each_batch<Element, kBatch<Element>>(range, [&](int first) {
        Group<Real> x[kBatch<Element>];
        source.load(first, x);
        accumulate<false>(part, x, exponent);
      });
      const auto sums = cluster.template reduce<kRowThreads<Element>>(part, OfRowSums{exponent.b});
      const double reference = reference_of(sums.max);
      rounded = Real(reference + sums.log_sum() * a.temperature);
      rest = Real((reference - double(rounded)) / a.temperature + sums.log_sum());
    }
    if (cluster.rank() == 0 && threadIdx.x == 0) {
      normalizers[2 * entry] = rounded;
      normalizers[2 * entry + 1] = rest;
    }
    for_each_group(range.begin, range.end, [&](int column) {
      Group<Real> x{};
      if (row >= 0) x = source.template again<Real>(column);
      for (int i = 0; i < kGroup; ++i) x.value[i] = (x.value[i] - rounded) * b - rest;
      target.store(x, column, columns);
    });
  }
  cluster.leave();
}

/// Cluster r: row r of the gradient, (g - softmax(x / T) * sum(g)) / T, added up over the entries that name the row.
template <class Element, bool kResident>
__global__ void __launch_bounds__(kRowThreads<Element>, kRowBlocks<Element, kResident>) log_softmax_gradient_kernel(
    LogSoftmaxArguments a, const typename RealOf<Element>::type* normalizers, Rows grad_out, EntriesByRow by_row,
    MutableRows gradient) {
  using Real = typename RealOf<Element>::type;
  Cluster cluster;
  const int columns = int(a.vocabulary);
  const ColumnRange range = columns_of_block(columns, cluster.rank(), cluster.size());
  const Exponent<Real> exponent(1 / a.temperature);
  auto* kept = static_cast<RawGroup<Element>*>(kResident ? dynamic_shared_memory() : nullptr);

  const auto add_entry = [&](int64_t entry, const auto& upstream, const auto& logits, Element* target, bool add) {
    double part = 0;
    for_each_batch<Element, kBatch<Element>>(range, [&](int first) {
      Group<Real> g[kBatch<Element>];
      upstream.load(first, g);
      Real sum = 0;
      for (int k = 0; k < kBatch<Element>; ++k)
        for (int i = 0; i < kGroup; ++i)
          if (first + k * kRowStep<Element> + i < range.end) sum += g[k].value[i];
      part += double(sum);
    });
    const double total = cluster.template reduce<kRowThreads<Element>>(part, by_pairs(Plus()));
    const Real b = Real(1 / a.temperature), reference = normalizers[2 * entry];
    const Real scale = Real(total / a.temperature / std::exp(double(normalizers[2 * entry + 1])));
    for_each_batch<Element, kBatch<Element>>(range, [&](int first) {
      Group<Real> x[kBatch<Element>];
      logits.load(first, x);
#pragma unroll
      for (int k = 0; k < kBatch<Element>; ++k) {
        const int column = first + k * kRowStep<Element>;
        if (column < range.end) {
          Group<Real> g = upstream.template again<Real>(column);
          for (int i = 0; i < kGroup; ++i)
            g.value[i] = g.value[i] * b - exponent.exp(x[k].value[i] - reference) * scale;
          store_group(g, target, column, columns, add);
        }
      }
    });
  };
  for (int64_t row = blockIdx.x / cluster.size(); row < gradient.row_count; row += gridDim.x / cluster.size()) {
    Element* target = row_pointer<Element>(gradient, row);
    const Row<Element, false> logits{row_pointer<Element>(a.logits, row), columns, range, nullptr};
    const NamedBy named = entries_of_row(by_row, a.entries, row);
    if (named.first == named.last) fill_columns(Real(0), target, range, columns, /*add=*/false);
    for (int64_t position = named.first; position < named.last; ++position) {
      const int64_t entry = entry_at(by_row, position);
      const bool add = position > named.first;
      if (kResident || grad_out.dtype == a.logits.dtype) {
        const Element* g = row_pointer<Element>(grad_out, entry);
        add_entry(entry, Row<Element, kResident>{g, columns, range, kept}, logits, target, add);
      } else {
        add_entry(entry, OtherRow<Element>{AnyRow(grad_out, entry), columns, range}, logits, target, add);
      }
    }
  }
  cluster.leave();
}

Status log_softmax(const LogSoftmaxArguments& a, const MutableRows& out, void* normalizers, Stream stream) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    const RowPlan plan = plan_rows(current_device(), int(a.vocabulary), sizeof(Element));
    const LaunchShape shape = shape_of(plan, a.entries, kRowThreads<Element>, /*visited_twice=*/true);
    const auto kernel = plan.resident ? log_softmax_kernel<Element, true> : log_softmax_kernel<Element, false>;
    return launch(kernel, shape, stream, a, out, static_cast<Real*>(normalizers));
  });
}

Status log_softmax_gradient(
    const LogSoftmaxArguments& a, const void* normalizers, const Rows& grad_out, const EntriesByRow& by_row,
    const MutableRows& gradient, Stream stream) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    RowPlan plan = plan_rows(current_device(), int(a.vocabulary), element_size(grad_out.dtype));
    plan.resident = plan.resident && grad_out.dtype == a.logits.dtype;
    const LaunchShape shape = shape_of(plan, gradient.row_count, kRowThreads<Element>, /*visited_twice=*/true);
    const auto kernel =
        plan.resident ? log_softmax_gradient_kernel<Element, true> : log_softmax_gradient_kernel<Element, false>;
    return launch(kernel, shape, stream, a, static_cast<const Real*>(normalizers), grad_out, by_row, gradient);
  });
}

}  // namespace cuda
}  // namespace tad
