// The CUDA kernels' launchers, on raw pointers and a stream: no CUDA header, no PyTorch header.
//
// Every pointer is a device pointer. A launcher only enqueues: it never waits, allocates, or reads device memory from
// the host, so all of them can be captured in a CUDA graph.
#pragma once

#include <cstddef>
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

/// How the loss and its gradient work on a row.
struct LaunchPlan {
  int cluster_blocks = 0;  // that share it
  size_t kept_bytes = 0;   // that each of them keeps in shared memory; 0: the row is read again
  int blocks_per_multiprocessor = 0;
};

/// Kernels of one launcher that follow each other, where the device can: one begins before the one before it is over,
/// and calls wait_for_kernel_before() before it touches what that one touches, and in any case before it ends. That one
/// says from where on: let_next_kernel_begin(). The first of them is an ordinary launch, so all earlier work is over.
struct Overlap {
  bool begins_early = false;
  bool lets_next_begin = false;  // there is a next one, which begins early: for the host's emulation
};

/// On the current device, for arguments like these, of which nothing is read.
Status tad_loss_plan(const TadLossArguments&, LaunchPlan*);

// What each does is said in csrc/bindings/backend.h.
Status tad_loss(TadLossArguments, double* losses, const TadGradient*, const EntriesByRow&, const TadTotals*, Stream);
Status tad_totals(const TadLossArguments&, const double* losses, const TadTotals&, Stream, Overlap = {});
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

}  // namespace cuda
}  // namespace tad
