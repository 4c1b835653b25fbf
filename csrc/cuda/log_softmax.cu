// log softmax of chosen rows at a temperature, and its gradient: a cluster of blocks works on a row, and keeps what it
// needs twice (forward: the logits, backward: the result's gradient).
#include "gradient_rows.cuh"
#include "resident.cuh"
#include "row_sums.cuh"

namespace tad {
namespace cuda {

/// Cluster i: rows i, i + clusters, ... of the result, out = (x - normalizer[0]) / T - normalizer[1], where
/// normalizer[0] is T * logsumexp(x / T) rounded and normalizer[1] what rounding left. NaN for a row that is out of
/// range. `whole_rows`: all are, of the logits and the result.
template <class Element, class Loader>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks<Element, Loader>) log_softmax_kernel(
    LogSoftmaxArguments a, MutableRows out, typename RealOf<Element>::type* normalizers, bool whole_rows) {
  using Real = typename RealOf<Element>::type;
  if constexpr (!knows<Loader>()) return;
  Cluster cluster;
  const int columns = int(a.vocabulary);
  const WarpColumns range = columns_of_warp(columns, cluster, kBatch<Element>);
  uint4* const kept = place_of_warp<Element, Loader>(range.kept_at);
  ArrivalsOf<Loader> arrivals;
  const Exponent<Real> exponent(1 / a.temperature);
  const Real b = Real(1 / a.temperature);

  const auto row_of = [&](int64_t entry) { return entry < a.entries ? existing_row(a.logits, a.rows, entry) : -1; };
  const auto source_of = [&](auto whole, int64_t row) {
    return part_of<whole.value, Loader>(row_pointer<Element>(a.logits, row), columns, range, kept);
  };
  const auto ask_for = [&](int64_t row, const auto&... half) {
    if (row >= 0) arrivals.ask_for(half..., 1, [&](int) { return source_of(std::true_type(), row); });
  };

  int64_t entry = blockIdx.x / cluster.size(), row = row_of(entry);
  begin_in_turn<Element, Loader>(row >= 0, columns, cluster);
  for (ask_for(row, range); entry < a.entries; entry += gridDim.x / cluster.size()) {
    const int64_t next = row_of(entry + gridDim.x / cluster.size());
    if (row < 0) {
      if (cluster.rank() == 0 && threadIdx.x < 2) normalizers[2 * entry + threadIdx.x] = Real(NAN);
      with_element(out.dtype, [&](auto result) {
        fill_columns(Real(NAN), row_pointer<decltype(result)>(out, entry), range, columns, /*add=*/false);
      });
      ask_for(next, range);
    } else {
      with_constant(whole_rows, [&](auto whole) {
        const auto source = source_of(whole, row);
        ThreadSum<Real> of_thread;
        visit_first<Loader, kBatch<Element>>(arrivals, range, [&](int first, auto is_full) {
          RawGroup<Element> raw[kBatch<Element>];
          follow(of_thread, source.template load_batch<is_full.value, Real>(first, raw), exponent);
          Group<Real> x[kBatch<Element>];
          as_numbers(raw, x);
          accumulate(of_thread, x, exponent);
        });
        struct Normalizer {
          Real rounded, rest;
        };
        const OfLanes<Real> of_warp{exponent};
        const auto normalizer = cluster.template reduce<kRowThreads>(of_thread.part, of_warp, [&](const auto& all) {
          const RowSum<double> sums = all.row_sum(exponent, exponent.reference_at(all.max));
          const double reference = reference_of(sums.max), log_sum = sums.log_sum();
          const Real rounded = Real(reference + log_sum * a.temperature);
          return Normalizer{rounded, Real((reference - double(rounded)) / a.temperature + log_sum)};
        });
        const Real rounded = normalizer.rounded, rest = normalizer.rest;
        if (cluster.rank() == 0 && threadIdx.x == 0) {
          normalizers[2 * entry] = rounded;
          normalizers[2 * entry + 1] = rest;
        }
        with_element(out.dtype, [&](auto result) {
          auto* target = row_pointer<decltype(result)>(out, entry);
          const auto to = target_part_of<whole.value>(target, columns, range, /*add=*/false);
          const auto of_groups = [&]<int kGroups>(int first, Group<Real>(&x)[kGroups]) {
            for_each_of(x, first, [&](Group<Real>& one, int group) {
              one = source.template again<Real>(group);
              for (Real& value : one.value) value = (value - rounded) * b - rest;
            });
          };
          write_groups<Loader, kBatch<Element>, Real>(
              range, to, of_groups, [&](const auto&... half) { ask_for(next, half...); });
        });
      });
    }
    row = next;
  }
  cluster.leave();
}

/// Cluster i: rows i, i + clusters, ... of the gradient, (g - softmax(x / T) * sum(g)) / T, added up over the entries
/// that name the row. `whole_rows`: all are, of both gradients and the logits.
template <class Element, class Loader>
__global__ void __launch_bounds__(kRowThreads, kRowBlocks<Element, Loader>) log_softmax_gradient_kernel(
    LogSoftmaxArguments a, const typename RealOf<Element>::type* normalizers, Rows grad_out, EntriesByRow by_row,
    MutableRows gradient, bool whole_rows) {
  using Real = typename RealOf<Element>::type;
  if constexpr (!knows<Loader>()) return;
  Cluster cluster;
  const int columns = int(a.vocabulary);
  const WarpColumns range = columns_of_warp(columns, cluster, kBatch<Element>);
  uint4* const kept = place_of_warp<Element, Loader>(range.kept_at);
  ArrivalsOf<Loader> arrivals;
  const Exponent<Real> exponent(1 / a.temperature);

  const auto upstream_of = [&](auto whole, const RowEntry& one) {
    const auto* g = row_pointer<Element>(grad_out, entry_at(by_row, one.position));
    return part_of<whole.value, Loader>(g, columns, range, kept);
  };
  const auto ask_for = [&](const RowEntry& one, const auto&... half) {
    if (Loader::kBulk && one.row < gradient.row_count && one.is_named())
      arrivals.ask_for(half..., 1, [&](int) { return upstream_of(std::true_type(), one); });
  };
  const auto add_entry = [&](const RowEntry& one, const RowEntry& next, auto whole, const auto& upstream) {
    const int64_t entry = entry_at(by_row, one.position);
    const auto logits = part_of<whole.value, NotKept>(row_pointer<Element>(a.logits, one.row), columns, range);
    const auto target = target_part_of<whole.value>(row_pointer<Element>(gradient, one.row), columns, range, one.add);
    struct Softmax {  // a probability is 2^exponent / e^rest
      Reference<Real> at;
      double rest;
    };
    logits.prefetch();
    if (threadIdx.x == kRowThreads - 1) {  // for the first warp, while the row is on its way
      const Real normalizer = normalizers[2 * entry];
      const Reference<Real> at = exponent.reference_at(normalizer);
      const Real own = exponent.of(reference_of(normalizer), at);
      *shared_array<Softmax, 1>() = {at, double(normalizers[2 * entry + 1]) + double(own) * kLn2};
    }
    double part = 0;
    visit_first<Loader, kBatch<Element>>(arrivals, range, [&](int first, auto is_full) {
      Group<Real> g[kBatch<Element>];
      load<is_full.value>(upstream, first, g);
      Real sum = 0;
      for (int k = 0; k < kBatch<Element>; ++k) {
        const int left = first + k * kWarp < range.groups ? logits.columns - (first + k * kWarp) * kGroup : 0;
        if (left >= kGroup) {
          for (int i = 0; i < kGroup; ++i) sum += g[k].value[i];
        } else {
          for (int i = 0; i < kGroup; ++i) sum += i < left ? g[k].value[i] : Real(0);
        }
      }
      part += double(sum);
    });
    struct Subtracted {  // the total times the softmax, over the temperature
      Reference<Real> at;
      Real scale;
    };
    const auto [at, scale] = cluster.template reduce<kRowThreads>(part, by_pairs(Plus()), [&](double total) {
      const Softmax softmax = *shared_array<Softmax, 1>();
      return Subtracted{softmax.at, Real(total / a.temperature / std::exp(softmax.rest))};
    });
    const Real b = Real(1 / a.temperature);
    // As registers suffice for.
    constexpr int kMost = !whole.value ? 1 : Loader::kBulk ? kBatch<Element> : kPairBatch<Element>;
    const auto of_groups = [&]<int kGroups>(int first, Group<Real>(&g)[kGroups]) {
      Group<Real> x[kGroups];
      load</*kFull=*/true>(logits, first, x);
      exponent.of(x, at);
#pragma unroll
      for (int k = 0; k < kGroups; ++k) {
        g[k] = upstream.template again<Real>(first + k * kWarp);
        for (int i = 0; i < kGroup; ++i) g[k].value[i] = g[k].value[i] * b - exp_base2(x[k].value[i]) * scale;
      }
    };
    write_groups<Loader, kMost, Real>(range, target, of_groups, [&](const auto&... half) { ask_for(next, half...); });
  };

  const bool same_dtype = Loader::kKeeps || grad_out.dtype == a.logits.dtype;
  RowEntry one = first_of_row(by_row, a.entries, blockIdx.x / cluster.size());
  begin_in_turn<Element, Loader>(one.is_named(), columns, cluster);
  for (ask_for(one, range); one.row < gradient.row_count;) {
    const RowEntry next = entry_after(by_row, a.entries, one, gridDim.x / cluster.size());
    if (!one.is_named()) {
      fill_columns(Real(0), row_pointer<Element>(gradient, one.row), range, columns, /*add=*/false);
      ask_for(next, range);
    } else if (!Loader::kKeeps && !same_dtype) {
      const AnyRow g(grad_out, entry_at(by_row, one.position));
      add_entry(one, next, std::false_type(), OtherRow{g, range.begin, columns, range.groups});
    } else {
      with_constant(whole_rows && !one.add, [&](auto whole) { add_entry(one, next, whole, upstream_of(whole, one)); });
    }
    one = next;
  }
  cluster.leave();
}

Status log_softmax(const LogSoftmaxArguments& a, const MutableRows& out, void* normalizers, Stream stream) {
  return with_element(a.logits.dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    const bool whole = are_whole(a.logits, a.vocabulary), all_whole = whole && are_whole(out, a.vocabulary);
    const RowPlan plan = plan_rows(current_device(), int(a.vocabulary), sizeof(Element), whole);
    LaunchShape shape = shape_of(plan, a.entries, /*visited_twice=*/true);
    shape.stays = plan.asks_ahead;
    return with_loader(plan, [&](auto loader) {
      const auto kernel = log_softmax_kernel<Element, decltype(loader)>;
      return launch(kernel, shape, stream, a, out, static_cast<Real*>(normalizers), all_whole);
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
    const bool all_whole = whole && are_whole(a.logits, a.vocabulary) && are_whole(gradient, a.vocabulary);
    const bool same_dtype = grad_out.dtype == a.logits.dtype;
    const int64_t column_bytes = element_size(grad_out.dtype);
    const RowPlan plan = plan_rows(current_device(), int(a.vocabulary), column_bytes, whole, same_dtype);
    LaunchShape shape = shape_of(plan, gradient.row_count, /*visited_twice=*/true);
    shape.stays = plan.asks_ahead;
    return with_loader(plan, [&](auto loader) {
      const auto kernel = log_softmax_gradient_kernel<Element, decltype(loader)>;
      const auto* of_rows = static_cast<const Real*>(normalizers);
      return launch(kernel, shape, stream, a, of_rows, grad_out, by_row, gradient, all_whole);
    });
  });
}

}  // namespace cuda
}  // namespace tad
