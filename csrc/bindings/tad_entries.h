// The loss's entries as the bindings see them: checked arguments, and the kernels' view of them.
#pragma once

#include "../common/arguments.h"
#include "checks.h"

namespace tad {

/// What a loss is told beside logits, labels and steps, in the order of the schemas.
struct LossOptions {
  int64_t delta;
  double ce_weight, kl_weight, temperature;
  OptionalTensor row_weight, student_rows, teacher_rows;
  OptionalTensor near_count, distant_count;  // denominators other than this call's own counts
};

/// Entries of one call. Owns what the kernels' pointers refer to.
class TadEntries {
 public:
  /// Checks shapes, dtypes, devices and numbers; `like` is a tensor on the device where everything is expected.
  TadEntries(
      const at::Tensor& like, const char* like_name, const at::Tensor& labels, const at::Tensor& steps_to_reveal,
      const LossOptions& options);

  /// The rows there are fit the entries that read them; and, where values may be looked at, every label and row number
  /// that is read lies in range. No teacher: nullopt.
  void check_rows(int64_t vocabulary, int64_t student_rows, std::optional<int64_t> teacher_rows) const;

  int64_t size() const { return labels_.numel(); }
  int64_t delta() const { return options_.delta; }
  const at::Tensor& steps() const { return steps_; }
  bool has_student_rows() const { return options_.student_rows.has_value(); }

  /// (N, 1) bool: the entries that add nothing to the loss, whatever they read.
  at::Tensor without_weight() const;

  /// The teacher's rows that entries [begin, end) name.
  at::Tensor teacher_row_of_entries(int64_t begin, int64_t end) const;

  /// The same entries in another order.
  TadEntries reordered(const at::Tensor& order) const;

  /// The kernels' view of all entries; logits are filled in by the caller.
  TadLossArguments arguments() const;

 private:
  LossOptions options_;  // with tensors as the kernels want them
  at::Tensor labels_, steps_;
};

/// loss, ce, kl, near_count and distant_count as 0-d tensors, to be filled through `view`.
struct TadResult {
  at::Tensor loss, ce, kl, near_count, distant_count;

  /// On the device of `like`, whose dtype decides that of loss, ce and kl.
  explicit TadResult(const at::Tensor& like);
  TadTotals view() const;
  TadTotals counts() const;
};

}  // namespace tad
