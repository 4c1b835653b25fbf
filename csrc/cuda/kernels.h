// The CUDA kernels' launchers, on raw pointers and a stream: no CUDA header, no PyTorch header.
//
// Every pointer is a device pointer. A launcher only enqueues: it never waits, allocates, or reads device memory from
// the host, so all of them can be captured in a CUDA graph.
#pragma once

#include <cstdint>

#include "../common/arguments.h"

namespace tad {
namespace cuda {

using Stream = void*;  // a cudaStream_t
using Status = int;    // a cudaError_t: 0 is success

/// The entries that name each row: entry numbers sorted by the row they name, in entry order within a row. Null: entry
/// i names row i.
struct EntriesByRow {
  const int64_t* sorted_rows = nullptr;
  const int64_t* entries = nullptr;
};

// What each does is said in csrc/bindings/backend.h.
Status tad_loss(const TadLossArguments&, double* losses, const TadGradient*, const EntriesByRow&, Stream);
Status tad_totals(const TadLossArguments&, const double* losses, const TadTotals&, Stream);
Status scale(void* data, int64_t count, DType, const void* factor, Stream);
Status log_softmax(const LogSoftmaxArguments&, const MutableRows& out, void* normalizers, Stream);
Status log_softmax_gradient(
    const LogSoftmaxArguments&, const void* normalizers, const Rows& grad_out, const EntriesByRow&,
    const MutableRows& gradient, Stream);
int64_t token_statistics_workspace(const TokenStatisticsArguments&);  // bytes
Status token_statistics(const TokenStatisticsArguments&, void* workspace, Stream);
Status select_reveal(
    const TokenStatisticsArguments&, const SelectionArguments&, const RevealArguments&, void* workspace, Stream);
Status truncate_logits(const TruncationArguments&, Stream);
Status commit_reveal(const RevealArguments&, Stream);
Status eligible_positions(const EligiblePositionsArguments&, Stream);
const char* status_text(Status);

/// All of them, for callers that are also built without CUDA.
struct Kernels {
  decltype(&cuda::tad_loss) tad_loss;
  decltype(&cuda::tad_totals) tad_totals;
  decltype(&cuda::scale) scale;
  decltype(&cuda::log_softmax) log_softmax;
  decltype(&cuda::log_softmax_gradient) log_softmax_gradient;
  decltype(&cuda::token_statistics_workspace) token_statistics_workspace;
  decltype(&cuda::token_statistics) token_statistics;
  decltype(&cuda::select_reveal) select_reveal;
  decltype(&cuda::truncate_logits) truncate_logits;
  decltype(&cuda::commit_reveal) commit_reveal;
  decltype(&cuda::eligible_positions) eligible_positions;
  decltype(&cuda::status_text) status_text;
};

extern const Kernels kKernels;

}  // namespace cuda
}  // namespace tad
