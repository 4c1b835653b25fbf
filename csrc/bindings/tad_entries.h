// The loss's entries as the bindings see them: checked arguments, kernels' view, counts and gradient scales.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "../common/arguments.h"

namespace tad {

struct TadWeights {
  double ce_weight;
  double kl_weight;
  double temperature;
  int64_t delta;
};

/// Entries of one call on the CPU. Owns what the kernels' pointers refer to.
class TadEntries {
 public:
  TadEntries(
      const at::Tensor& labels, const at::Tensor& steps_to_reveal, const std::optional<at::Tensor>& row_weight,
      const std::optional<at::Tensor>& student_rows, const std::optional<at::Tensor>& teacher_rows,
      const TadWeights& weights);

  /// Row counts fit the entries, and every label and row index that is read lies in range. No teacher: nullopt.
  void check_indices(int64_t vocabulary, int64_t student_rows, std::optional<int64_t> teacher_rows) const;

  int64_t size() const { return labels_.numel(); }
  int64_t near() const { return near_; }
  int64_t distant() const { return distant_; }
  int64_t steps(int64_t entry) const { return steps_.const_data_ptr<int64_t>()[entry]; }
  double weight(int64_t entry) const { return row_weight_ ? row_weight_->const_data_ptr<double>()[entry] : 1.0; }
  bool is_near(int64_t entry) const { return steps(entry) >= 1 && steps(entry) <= weights_.delta; }
  bool is_distant(int64_t entry) const { return steps(entry) > weights_.delta; }
  int64_t teacher_row(int64_t entry) const {
    return teacher_rows_ ? teacher_rows_->const_data_ptr<int64_t>()[entry] : entry;
  }
  const int64_t* student_rows() const;

  /// Entry i's d loss / d (unweighted loss of entry i), for given denominators.
  double gradient_scale(int64_t entry, double near_denominator, double distant_denominator) const;

  /// The kernels' view of all entries; logits are filled in by the caller.
  TadLossArguments arguments() const;

  /// (loss, ce, kl) as 0-d tensors of `dtype` from the entries' unweighted losses (float64), added in entry order.
  std::tuple<at::Tensor, at::Tensor, at::Tensor> reduce(
      const at::Tensor& losses, double near_denominator, double distant_denominator, at::ScalarType dtype) const;

 private:
  TadWeights weights_;
  at::Tensor labels_, steps_;
  std::optional<at::Tensor> row_weight_, student_rows_, teacher_rows_;
  int64_t near_ = 0, distant_ = 0;
};

/// A given denominator, or this call's own count; one that is 0 counts as 1.
double denominator(const std::optional<at::Tensor>& given, const char* name, int64_t own);

at::Tensor count_tensor(int64_t count);

}  // namespace tad
