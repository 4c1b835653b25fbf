// What the operators ask of a device. They check and allocate; a backend computes.
#pragma once

#include <ATen/ATen.h>

#include <memory>

#include "../common/arguments.h"

namespace tad {

class Backend {
 public:
  virtual ~Backend() = default;

  /// Whether the host can look at tensors' values without waiting for the device.
  virtual bool host_reads_values() const = 0;

  /// Each entry's own loss (not weighted; KL without temperature^2) unless `losses` is null, and in the same visit of
  /// the logits the gradient unless that is null; it needs the arguments' counts. Where these entries are a whole call,
  /// `totals` take its counts, in the place of the arguments', and what its losses add up to.
  virtual void tad_loss(
      const TadLossArguments&, double* losses, const TadGradient* gradient, const TadTotals* totals) const = 0;

  /// Counts and weighted sums, added in a fixed order. Without `losses`: the counts alone.
  virtual void tad_totals(const TadLossArguments&, const double* losses, const TadTotals&) const = 0;

  /// gradient *= factor, a 0-d tensor on its device; nothing is touched where it is 1.
  virtual void scale(at::Tensor& gradient, const at::Tensor& factor) const = 0;

  /// The normalizers are two numbers per entry (see csrc/cpu/log_softmax.h).
  virtual void log_softmax(const LogSoftmaxArguments&, const MutableRows& out, void* normalizers) const = 0;

  virtual void log_softmax_gradient(
      const LogSoftmaxArguments&, const void* normalizers, const Rows& grad_out, const MutableRows& gradient) const = 0;

  virtual void token_statistics(const TokenStatisticsArguments&) const = 0;

  virtual void truncate_logits(const TruncationArguments&) const = 0;

  /// The statistics, then the choice by them, then the reveals; each points to what the one before it writes.
  virtual void select_reveal(
      const TokenStatisticsArguments&, const SelectionArguments&, const RevealArguments&) const = 0;

  virtual void commit_reveal(const RevealArguments&) const = 0;

  virtual void eligible_positions(const EligiblePositionsArguments&) const = 0;
};

/// The backend of a tensor's device, on its current stream; that device stays the current one while the backend lives.
/// Throws NotImplementedError where nothing is compiled for the device.
std::unique_ptr<Backend> backend_for(const at::Tensor& tensor);

std::unique_ptr<Backend> cpu_backend();
std::unique_ptr<Backend> cuda_backend(const at::Device& device);

/// Sums, normalizers and results are float64 for float64 logits, otherwise float32.
inline at::ScalarType real_type(const at::Tensor& logits) {
  return logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace tad
