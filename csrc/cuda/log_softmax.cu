// log softmax of chosen rows at a temperature, and its gradient: a cluster of blocks works on a row, and keeps what it
// needs twice (forward: the logits, backward: the result's gradient).
#include "gradient_rows.cuh"
#include "resident.cuh"
#include "row_sums.cuh"

namespace tad {
namespace cuda {

/// Cluster i: row i of the result, out = (x - normalizer[0]) / T - normalizer[1], where normalizer[0] is T *
/// logsumexp(x / T) rounded and normalizer[1] what rounding left. NaN for a row that is out of range.
template <class Element, class Loader>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks<Element, Loader>)
    log_softmax_kernel(LogSoftmaxArguments a, MutableRows out, typename RealOf<Element>::type* normalizers) {
  using Real = typename RealOf<Element>::type;
  if constexpr (!knows<Loader>()) return;
  Cluster cluster;
  const int columns = int(a.vocabulary);
  const WarpColumns range = columns_of_warp(columns, cluster, kBatch<Element>);
  ArrivalsOf<Loader> arrivals;
  const Exponent<Real> exponent(1 / a.temperature);
  const Real b = Real(1 / a.temperature);
  uint4* kept = Loader::kKeeps ? static_cast<uint4*>(dynamic_shared_memory()) : nullptr;

  for (int64_t entry = blockIdx.x / cluster.size(); entry < a.entries; entry += gridDim.x / cluster.size()) {
    const int64_t row = existing_row(a.logits, a.rows, entry);
    if (row < 0) {
      if (cluster.rank() == 0 && threadIdx.x < 2) normalizers[2 * entry + threadIdx.x] = Real(NAN);
      with_element(out.dtype, [&](auto result) {
        fill_columns(Real(NAN), row_pointer<decltype(result)>(out, entry), range, columns, /*add=*/false);
      });
      continue;
    }
    const Element* data = row_pointer<Element>(a.logits, row);
    with_constant(columns % kGroup == 0 && is_aligned(data), [&](auto is_whole) {
      const auto source = part_of<is_whole.value, Loader>(data, columns, range, kept);
      arrivals.ask_for(range, source);
      PowerSum<Real> part;
      visit_first<kBatch<Element>>(arrivals, range, [&](int first, auto is_full) {
        Group<Real> x[kBatch<Element>];
        const Real largest = source.template load<is_full.value>(first, x);
        accumulate(part, x, largest, exponent);
      });
      struct Normalizer {
        Real rounded, rest;
      };
      const OfLanes<Real> of_warp{exponent};
      const auto normalizer = cluster.template reduce<kRowThreads>(part, of_warp, [&](const PowerSum<Real>& whole) {
        const RowSum<double> sums = whole.row_sum(exponent);
        const double reference = reference_of(sums.max), log_sum = sums.log_sum();
        const Real rounded = Real(reference + log_sum * a.temperature);
        return Normalizer{rounded, Real((reference - double(rounded)) / a.temperature + log_sum)};
      });
      const Real rounded = normalizer.rounded, rest = normalizer.rest;
      if (cluster.rank() == 0 && threadIdx.x == 0) {
        normalizers[2 * entry] = rounded;
        normalizers[2 * entry + 1] = rest;
      }
      const auto write = [&](const auto& target) {
        for_each_group(0, range.groups, [&](int group) {
          Group<Real> x = source.template again<Real>(group);
          for (int i = 0; i < kGroup; ++i) x.value[i] = (x.value[i] - rounded) * b - rest;
          target.store(x, group);
        });
      };
      with_element(out.dtype, [&](auto result) {
        using Result = decltype(result);
        Result* target = row_pointer<Result>(out, entry);
        if (is_whole.value && is_aligned(target))
          write(target_part_of<true>(target, columns, range, /*add=*/false));
        else
          write(target_part_of<false>(target, columns, range, /*add=*/false));
      });
    });
  }
  cluster.leave();
}

/// Cluster r: row r of the gradient, (g - softmax(x / T) * sum(g)) / T, added up over the entries that name the row.
template <class Element, class Loader>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks<Element, Loader>) log_softmax_gradient_kernel(
    LogSoftmaxArguments a, const typename RealOf<Element>::type* normalizers, Rows grad_out, EntriesByRow by_row,
    MutableRows gradient) {
  using Real = typename RealOf<Element>::type;
  if constexpr (!knows<Loader>()) return;
  Cluster cluster;
  const int columns = int(a.vocabulary);
  const WarpColumns range = columns_of_warp(columns, cluster, kBatch<Element>);
  ArrivalsOf<Loader> arrivals;
  const Exponent<Real> exponent(1 / a.temperature);
  uint4* kept = Loader::kKeeps ? static_cast<uint4*>(dynamic_shared_memory()) : nullptr;

  const auto add_entry = [&](int64_t entry, const auto& upstream, const auto& logits, const auto& target) {
    double part = 0;
    const auto visit = [&](int first, auto is_full) {
      Group<Real> g[kBatch<Element>];
      upstream.template load<is_full.value>(first, g);
      Real sum = 0;
      for (int k = 0; k < kBatch<Element>; ++k) {
        const int left =
            first + k * kWarp < range.groups ? logits.columns - (first + k * kWarp) * kGroup : 0;
        if (left >= kGroup) {
          for (int i = 0; i < kGroup; ++i) sum += g[k].value[i];
        } else {
          for (int i = 0; i < kGroup; ++i) sum += i < left ? g[k].value[i] : Real(0);
        }
      }
      part += double(sum);
    };
    struct Softmax {  // a probability is 2^exponent / e^rest
      Reference<Real> at;
      double rest;
    };
    arrivals.ask_for(range, upstream);
    logits.prefetch();
    if (threadIdx.x == kRowThreads - 1) {  // for the first warp, while the row is on its way
      const Reference<Real> at = exponent.reference_at(normalizers[2 * entry]);
      *shared_array<Softmax, 1>() = {at, double(normalizers[2 * entry + 1]) + double(exponent.of_largest(at)) * kLn2};
    }
    visit_first<kBatch<Element>>(arrivals, range, visit);
    struct Subtracted {  // the total times the softmax, over the temperature
      Reference<Real> at;
      Real scale;
    };
    const auto [at, scale] = cluster.template reduce<kRowThreads>(part, by_pairs(Plus()), [&](double total) {
      const Softmax softmax = *shared_array<Softmax, 1>();
      return Subtracted{softmax.at, Real(total / a.temperature / std::exp(softmax.rest))};
    });
    const Real b = Real(1 / a.temperature);
    constexpr int kGroups = Loader::kBulk ? kBatch<Element> : kPairBatch<Element>;  // as registers suffice for
    for_each_batch<kGroups>(0, range.groups, [&](int first, auto is_full) {
      Group<Real> x[kGroups];
      logits.template load<is_full.value>(first, x);
      exponent.of(x, at);
#pragma unroll
      for (int k = 0; k < kGroups; ++k) {
        const int group = first + k * kWarp;
        if (is_full.value || group < range.groups) {
          Group<Real> g = upstream.template again<Real>(group);
          for (int i = 0; i < kGroup; ++i) g.value[i] = g.value[i] * b - exp_base2(x[k].value[i]) * scale;
          target.store(g, group);
        }
      }
    });
  };
  for (int64_t row = blockIdx.x / cluster.size(); row < gradient.row_count; row += gridDim.x / cluster.size()) {
    Element* target = row_pointer<Element>(gradient, row);
    const Element* logits = row_pointer<Element>(a.logits, row);
    const NamedBy named = entries_of_row(by_row, a.entries, row);
    if (named.first == named.last) fill_columns(Real(0), target, range, columns, /*add=*/false);
    for (int64_t position = named.first; position < named.last; ++position) {
      const int64_t entry = entry_at(by_row, position);
      const bool add = position > named.first, same_dtype = Loader::kKeeps || grad_out.dtype == a.logits.dtype;
      const Element* g = row_pointer<Element>(grad_out, same_dtype ? entry : 0);
      const bool whole =
          same_dtype && !add && columns % kGroup == 0 && is_aligned(target) && is_aligned(logits) && is_aligned(g);
      with_constant(whole, [&](auto is_whole) {
        constexpr bool kWhole = is_whole.value;
        const auto x = part_of<kWhole, NotKept>(logits, columns, range, nullptr);
        const auto out = target_part_of<kWhole>(target, columns, range, add);
        if constexpr (!Loader::kKeeps && !kWhole) {
          if (!same_dtype) {
            add_entry(entry, OtherRow{AnyRow(grad_out, entry), range.begin, columns, range.groups}, x, out);
            return;
          }
        }
        add_entry(entry, part_of<kWhole, Loader>(g, columns, range, kept), x, out);
      });
    }
  }
  cluster.leave();
}

Status log_softmax(const LogSoftmaxArguments& a, const MutableRows& out, void* normalizers, Stream stream) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    const bool whole = are_whole(a.logits, a.vocabulary);
    const RowPlan plan = plan_rows(current_device(), int(a.vocabulary), sizeof(Element), whole);
    const LaunchShape shape = shape_of(plan, a.entries, /*visited_twice=*/true);
    return with_loader(plan, [&](auto loader) {
      const auto kernel = log_softmax_kernel<Element, decltype(loader)>;
      return launch(kernel, shape, stream, a, out, static_cast<Real*>(normalizers));
    });
  });
}

Status log_softmax_gradient(
    const LogSoftmaxArguments& a, const void* normalizers, const Rows& grad_out, const EntriesByRow& by_row,
    const MutableRows& gradient, Stream stream) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    const bool whole = are_whole(grad_out, a.vocabulary);
    RowPlan plan = plan_rows(current_device(), int(a.vocabulary), element_size(grad_out.dtype), whole);
    plan.resident = plan.resident && grad_out.dtype == a.logits.dtype;
    const LaunchShape shape = shape_of(plan, gradient.row_count, /*visited_twice=*/true);
    return with_loader(plan, [&](auto loader) {
      const auto kernel = log_softmax_gradient_kernel<Element, decltype(loader)>;
      return launch(kernel, shape, stream, a, static_cast<const Real*>(normalizers), grad_out, by_row, gradient);
    });
  });
}

}  // namespace cuda
}  // namespace tad
