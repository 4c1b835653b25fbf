// Matrix products whose bits depend on nothing but the rows themselves.
//
// A BLAS library chooses kernels and splits work by the shapes it sees and by its number of threads, so a row's result
// may change with the rows around it. Here every call it gets has the same shape, is made inside a parallel region,
// where it uses one thread, and threads share the tiles instead.
#pragma once

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <string_view>

/// Intel MKL's, where PyTorch is built with it: the number of threads of calls from this thread; returns the earlier
/// one.
extern "C" int MKL_Set_Num_Threads_Local(int threads) __attribute__((weak));

namespace tad {

/// MKL called from this thread works alone. Inside a parallel region it does so anyway, but by another plan.
class SequentialMkl {
 public:
  SequentialMkl() : before_(MKL_Set_Num_Threads_Local ? MKL_Set_Num_Threads_Local(1) : 0) {}
  ~SequentialMkl() {
    if (MKL_Set_Num_Threads_Local) MKL_Set_Num_Threads_Local(before_);
  }

 private:
  int before_;
};

/// Rows of a tile: in low precision products are so fast that reading the other factor takes as long.
inline int64_t tile_rows(at::ScalarType type) {
  return at::elementSize(type) > 2 ? 64 : 128;
}
constexpr int64_t kTileColumns = 1024, kFewestTileColumns = 128, kColumnTiles = 8;
constexpr int64_t kTileDepth = 1024, kDepthGroups = 8;

/// oneDNN's product x @ w.t(), where this PyTorch has it. In float32 it is worth a copy of the result: MKL has no
/// AVX-512 kernels for other makers' processors.
class OneDnnLinear {
 public:
  /// Whether it takes these float32 factors as they lie; it has no fast kernel for a part of a matrix's columns.
  static bool takes(const at::Tensor& a, const at::Tensor& b) {
#if defined(__x86_64__)
    return a.scalar_type() == at::kFloat && a.stride(1) == 1 && (b.is_contiguous() || b.t().is_contiguous()) &&
           at::globalContext().userEnabledMkldnn() && operation().has_value();
#else
    return false;
#endif
  }

  /// a @ b
  static at::Tensor product(const at::Tensor& a, const at::Tensor& b) {
    return operation()->call(a, b.t(), std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt);
  }

 private:
  using Signature = at::Tensor(
      const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
      c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);

  static const std::optional<c10::TypedOperatorHandle<Signature>>& operation() {
    static const auto found = [] {
      const auto schema = c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
      return schema ? std::optional(schema->typed<Signature>()) : std::nullopt;
    }();
    return found;
  }
};

/// `work(task)` for each of so many, shared among the threads, within which BLAS libraries use one.
template <class Work>
void for_each_task(int64_t tasks, const Work& work) {
  std::atomic<int64_t> next{0};
  // A share for every thread even where there is a single task: outside a parallel region BLAS would use its own
  // threads.
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    const SequentialMkl sequential;
    // Thread-local, so that a worker does not have the caller's.
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    for (int64_t task; (task = next.fetch_add(1)) < tasks;) work(task);
  });
}

/// out = a @ b for a (M, K) with a large K and b (K, N), float32, by oneDNN: sums of slices that stay in the cache.
inline void deep_mm_out(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  const int64_t rows = a.size(0), depth = a.size(1), most = tile_rows(a.scalar_type());
  const int64_t row_tiles = (rows + most - 1) / most;
  const int64_t slices = (depth + kTileDepth - 1) / kTileDepth, of_group = (slices + kDepthGroups - 1) / kDepthGroups;
  const at::Tensor sums = at::zeros({kDepthGroups, rows, b.size(1)}, out.options());
  for_each_task(kDepthGroups * row_tiles, [&](int64_t task) {
    const int64_t row = task % row_tiles * most, group = task / row_tiles;
    const int64_t height = std::min(most, rows - row);
    const at::Tensor some = a.narrow(0, row, height);
    at::Tensor sum = sums[group].narrow(0, row, height);
    const int64_t begin = group * of_group * kTileDepth, end = std::min(depth, begin + of_group * kTileDepth);
    for (int64_t k = begin; k < end; k += kTileDepth) {
      const int64_t here = std::min(kTileDepth, end - k);
      sum.add_(OneDnnLinear::product(some.narrow(1, k, here), b.narrow(0, k, here)));
    }
  });
  out.copy_(sums[0]);
  for (int64_t group = 1; group < kDepthGroups; ++group) out.add_(sums[group]);
}

/// out = a @ b for a (M, K) and b (K, N). With M in whole tiles, a row of the result depends on its row of `a` and on
/// `b` only.
inline void tiled_mm_out(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  if (a.size(1) > kDepthGroups * kTileDepth && OneDnnLinear::takes(a, b)) return deep_mm_out(out, a, b);
  const int64_t rows = a.size(0), columns = b.size(1), most = tile_rows(a.scalar_type());
  // So many that there is something for every thread.
  const int64_t tile_columns = std::clamp(columns / kColumnTiles, kFewestTileColumns, kTileColumns);
  const int64_t row_tiles = (rows + most - 1) / most;
  for_each_task(row_tiles * ((columns + tile_columns - 1) / tile_columns), [&](int64_t task) {
    // All rows meet the same columns of `b` before the next ones are read.
    const int64_t row = task % row_tiles * most, column = task / row_tiles * tile_columns;
    const int64_t height = std::min(most, rows - row), width = std::min(tile_columns, columns - column);
    at::Tensor target = out.narrow(0, row, height).narrow(1, column, width);
    const at::Tensor here = a.narrow(0, row, height), there = b.narrow(1, column, width);
    if (OneDnnLinear::takes(here, there))
      target.copy_(OneDnnLinear::product(here, there));
    else
      at::mm_out(target, here, there);
  });
}

}  // namespace tad
