// The CUDA backend: hands pointers to the kernels' launchers, on the current stream of the tensors' device. Where no
// kernels are compiled for CUDA, all that is left of it says so.
//
// Needs no CUDA headers and no CUDA build of PyTorch to compile: the stream comes through the device guard interface.
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "../cuda/device.h"
#include "../cuda/kernels.h"
#include "backend.h"
#include "checks.h"

namespace tad {

#if defined(TAD_WITH_CUDA) || defined(TAD_CUDA_ON_HOST)
namespace {

/// The entries that name each row, made on the device: entry numbers sorted by row, in entry order within a row.
struct SortedEntries {
  at::Tensor rows, entries;
  cuda::EntriesByRow view;

  SortedEntries(const int64_t* named_rows, int64_t count, const at::Device& device) {
    if (!named_rows || count == 0) return;
    const auto options = at::TensorOptions().dtype(at::kLong).device(device);
    const at::Tensor named = at::for_blob(const_cast<int64_t*>(named_rows), {count})
                                 .options(options)
                                 .target_device(device)  // or else the driver is asked whose memory it is
                                 .make_tensor();
    std::tie(rows, entries) = at::sort(named, /*stable=*/true, /*dim=*/0, /*descending=*/false);
    view = {rows.const_data_ptr<int64_t>(), entries.const_data_ptr<int64_t>()};
  }
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const at::Device& device) : guard_(device), device_(device) {
    TORCH_CHECK_VALUE(
        cuda::loader_is_known(), "TAD_CUDA_LOADER is '", cuda::loader(), "', expected ", cuda::kAheadLoader, ", ",
        cuda::kBulkLoader, " or ", cuda::kThreadLoader);
    if (!device.is_cpu()) stream_ = c10::impl::VirtualGuardImpl(device.type()).getStream(device).native_handle();
  }

  bool host_reads_values() const override { return false; }

  void tad_loss(
      const TadLossArguments& a, double* losses, const TadGradient* gradient, const TadTotals* totals) const override {
    const SortedEntries sorted(gradient ? a.student_rows : nullptr, a.entries, device_);
    check(cuda::tad_loss(a, losses, gradient, sorted.view, totals, stream_), "tad_loss");
  }

  void tad_totals(const TadLossArguments& a, const double* losses, const TadTotals& out) const override {
    check(cuda::tad_totals(a, losses, out, stream_), "tad_totals");
  }

  void scale(at::Tensor& gradient, const at::Tensor& factor) const override {
    const DType dtype = dtype_of(gradient);
    check(cuda::scale(gradient.mutable_data_ptr(), gradient.numel(), dtype, factor.const_data_ptr(), stream_), "scale");
  }

  void log_softmax(const LogSoftmaxArguments& a, const MutableRows& out, void* normalizers) const override {
    check(cuda::log_softmax(a, out, normalizers, stream_), "log_softmax");
  }

  void log_softmax_gradient(
      const LogSoftmaxArguments& a, const void* normalizers, const Rows& grad_out,
      const MutableRows& gradient) const override {
    const SortedEntries sorted(a.rows, a.entries, device_);
    check(cuda::log_softmax_gradient(a, normalizers, grad_out, sorted.view, gradient, stream_), "log_softmax_gradient");
  }

  void token_statistics(const TokenStatisticsArguments& a) const override {
    const at::Tensor workspace = workspace_for(a);
    check(cuda::token_statistics(a, workspace.mutable_data_ptr(), stream_), "token_statistics");
  }

  void truncate_logits(const TruncationArguments& a) const override {
    check(cuda::truncate_logits(a, stream_), "truncate_logits");
  }

  void select_reveal(
      const TokenStatisticsArguments& statistics, const SelectionArguments& selection,
      const RevealArguments& reveal) const override {
    const at::Tensor workspace = workspace_for(statistics);
    check(cuda::select_reveal(statistics, selection, reveal, workspace.mutable_data_ptr(), stream_), "select_reveal");
  }

  void commit_reveal(const RevealArguments& a) const override {
    check(cuda::commit_reveal(a, stream_), "commit_reveal");
  }

  void eligible_positions(const EligiblePositionsArguments& a) const override {
    check(cuda::eligible_positions(a, stream_), "eligible_positions");
  }

 private:
  at::Tensor workspace_for(const TokenStatisticsArguments& a) const {
    return at::empty({cuda::token_statistics_workspace(a)}, at::TensorOptions().dtype(at::kByte).device(device_));
  }

  static void check(cuda::Status status, const char* kernel) {
    TORCH_CHECK(
        status == 0, "CUDA reports an error at the launch of ", kernel,
        " (its own, or one of earlier work): ", cuda::status_text(status));
  }

  c10::DeviceGuard guard_;
  at::Device device_;
  cuda::Stream stream_ = nullptr;
};

}  // namespace

std::unique_ptr<Backend> cuda_backend(const at::Device& device) {
  return std::make_unique<CudaBackend>(device);
}

#else

std::unique_ptr<Backend> cuda_backend(const at::Device&) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false,
      "tad_ext was built without CUDA kernels (" TAD_CUDA_REASON
      "). Install it again where nvcc and a CUDA build of PyTorch are there: `pip install --no-build-isolation .` "
      "(TAD_CUDA=1 makes a missing one an error). TAD_EXT_REFERENCE=1 runs the plain-PyTorch reference on the GPU "
      "instead");
}

#endif

}  // namespace tad
