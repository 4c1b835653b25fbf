// What surrounds the loss's visit of the logits: the counts before it, the totals after it, and the gradient's factor.
#include "platform.cuh"

#include "../common/entries.h"
#include "reduce.cuh"
#include "row_io.cuh"

namespace tad {
namespace cuda {

constexpr int kTotalsThreads = 512;
constexpr int kScaleThreads = 256;

/// One block adds up all entries: each thread every 512th one, then the threads' sums in a fixed order. An entry whose
/// label or row is out of range has a loss of NaN.
template <class Real>
__global__ void __launch_bounds__(kTotalsThreads)
    tad_totals_kernel(TadLossArguments a, const double* losses, TadTotals out) {
  let_next_kernel_begin();
  wait_for_kernel_before();
  TadSums sums;
  for (int64_t i = threadIdx.x; i < a.entries; i += kTotalsThreads) {
    const bool valid = losses && indices_are_valid(a, i, kind_of(a, i));
    sums.add(a, i, valid ? losses[i] : losses ? NAN : 0);
  }
  const auto add = [](const TadSums& x, const TadSums& y) { return merge(x, y); };
  sums = reduce_to_first_warp<kTotalsThreads>(sums, by_pairs(add));
  if (threadIdx.x == 0) write_totals<Real>(a, sums, out);
}

/// data *= factor, in groups of eight; nothing is read or written where the factor is 1.
template <class Element>
__global__ void __launch_bounds__(kScaleThreads)
    scale_kernel(Element* data, int64_t count, const typename RealOf<Element>::type* factor) {
  using Real = typename RealOf<Element>::type;
  const Real by = *factor;
  if (by == Real(1)) return;
  const int64_t thread = int64_t(blockIdx.x) * kScaleThreads + threadIdx.x;
  const int64_t step = int64_t(gridDim.x) * kScaleThreads * kGroup;
  for (int64_t i = thread * kGroup; i < count; i += step) {
    const int columns = int(count - i < kGroup ? count - i : kGroup);  // count may exceed an int
    Group<Real> x = load_group<Real>(data + i, 0, columns);
    for (int k = 0; k < kGroup; ++k) x.value[k] *= by;
    store_group(x, data + i, 0, columns, /*add=*/false);
  }
}

Status tad_totals(
    const TadLossArguments& a, const double* losses, const TadTotals& out, Stream stream, Overlap overlap) {
  const auto kernel = a.student.dtype == DType::kFloat64 ? tad_totals_kernel<double> : tad_totals_kernel<float>;
  return launch(
      kernel, LaunchShape{.blocks = dim3(1), .threads = kTotalsThreads, .overlap = overlap}, stream, a, losses, out);
}

Status scale(void* data, int64_t count, DType dtype, const void* factor, Stream stream) {
  return with_element(dtype, [&](auto element) {
    using Element = decltype(element);
    using Real = typename RealOf<Element>::type;
    constexpr int64_t kOfBlock = kScaleThreads * kGroup;
    const int64_t wanted = (count + kOfBlock - 1) / kOfBlock, most = 8 * current_device().multiprocessors;
    const dim3 blocks(unsigned(wanted < most ? wanted : most));
    return launch(
        scale_kernel<Element>, blocks, kScaleThreads, stream, static_cast<Element*>(data), count,
        static_cast<const Real*>(factor));
  });
}

}  // namespace cuda
}  // namespace tad
