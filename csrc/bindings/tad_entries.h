// The loss's entries as the bindings see them: checked arguments, and the kernels' view of them.
#pragma once

#include "../common/arguments.h"
#include "checks.h"

namespace tad {

/// Entries of one call. Owns what the kernels' pointers refer to.
class TadEntries {
 public:
  /// Checks shapes, dtypes, devices and numbers; `like` is a tensor on the device where everything is expected. What
  /// follows is what every loss is told beside the rows that it reads.
  static TadEntries of(
      const at::Tensor& like, const char* like_name, const at::Tensor& labels, const at::Tensor& steps_to_reveal,
      int64_t delta, double ce_weight, double kl_weight, double temperature, const OptionalTensor& row_weight,
      const OptionalTensor& teacher_rows, const OptionalTensor& near_count, const OptionalTensor& distant_count);

  /// The same, in the operators' schemas.
  static constexpr const char* kSchema =
      "Tensor labels, Tensor steps_to_reveal, int delta, float ce_weight, float kl_weight, float temperature, "
      "Tensor? row_weight, Tensor? teacher_rows, Tensor? near_count, Tensor? distant_count";

  /// The student's row that each entry reads; nullopt: its own number.
  void choose_student_rows(const OptionalTensor& rows);

  /// There is a teacher, unless nothing is asked of it.
  void check_teacher(const OptionalTensor& teacher, const char* name) const;

  /// The rows there are fit the entries that read them; and, where values may be looked at, every label and row number
  /// that is read lies in range. No teacher: nullopt.
  void check_rows(int64_t vocabulary, int64_t student_rows, std::optional<int64_t> teacher_rows) const;

  int64_t size() const { return labels_.numel(); }
  at::IntArrayRef shape() const { return shape_; }  // of the labels
  int64_t delta() const { return numbers_.delta; }
  const at::Tensor& steps() const { return steps_; }

  /// (N, 1) bool: the entries that add nothing to the loss, whatever they read.
  at::Tensor without_weight() const;

  /// The teacher's rows that entries [begin, end) name.
  at::Tensor teacher_row_of_entries(int64_t begin, int64_t end) const;

  /// The same entries in another order, of which none names a row of the student.
  TadEntries reordered(const at::Tensor& order) const;

  /// The kernels' view of all entries; logits are filled in by the caller.
  TadLossArguments arguments() const;

 private:
  TadLossArguments numbers_;  // those of the arguments that are no tensors
  at::DimVector shape_;
  at::Tensor labels_, steps_;  // these, too, as the kernels want them
  OptionalTensor row_weight_, student_rows_, teacher_rows_, near_count_, distant_count_;
};

/// loss, ce, kl, near_count and distant_count as 0-d tensors, to be filled through `view`.
struct TadResult {
  at::Tensor loss, ce, kl, near_count, distant_count;

  /// On the device of `like`, whose dtype decides that of loss, ce and kl.
  explicit TadResult(const at::Tensor& like);
  TadTotals view() const;
};

}  // namespace tad
