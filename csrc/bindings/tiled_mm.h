// Matrix products whose bits depend on nothing but the rows themselves.
//
// A BLAS library chooses kernels and splits work by the shapes it sees and by its number of threads, so a row's result
// may change with the rows around it. Here every call it gets has the same shape, is made inside a parallel region,
// where it uses one thread, and threads share the tiles instead.
#pragma once

#include <ATen/ATen.h>
#include <ATen/autocast_mode.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

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

constexpr int64_t kTileRows = 64;
constexpr int64_t kTileColumns = 1024;

/// out = a @ b for a (M, K) and b (K, N). With M in whole tiles, a row of the result depends on its row of `a` and on
/// `b` only.
inline void tiled_mm_out(const at::Tensor& out, const at::Tensor& a, const at::Tensor& b) {
  const int64_t rows = a.size(0), columns = b.size(1);
  const int64_t row_tiles = (rows + kTileRows - 1) / kTileRows;
  const int64_t tiles = row_tiles * ((columns + kTileColumns - 1) / kTileColumns);
  std::atomic<int64_t> next{0};
  // A share for every thread even where there is a single tile: outside a parallel region BLAS would use its own
  // threads.
  at::parallel_for(0, at::get_num_threads(), 1, [&](int64_t, int64_t) {
    const SequentialMkl sequential;
    // Thread-local, so that a worker does not have the caller's.
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
    for (int64_t tile; (tile = next.fetch_add(1)) < tiles;) {
      // All rows meet the same columns of `b` before the next ones are read.
      const int64_t row = tile % row_tiles * kTileRows, column = tile / row_tiles * kTileColumns;
      const int64_t height = std::min(kTileRows, rows - row), width = std::min(kTileColumns, columns - column);
      at::Tensor target = out.narrow(0, row, height).narrow(1, column, width);
      at::mm_out(target, a.narrow(0, row, height), b.narrow(1, column, width));
    }
  });
}

}  // namespace tad
