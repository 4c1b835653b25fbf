// tad_loss and tad_loss_backward.
#include "backend.h"
#include "checks.h"
#include "operators.h"
#include "tad_entries.h"

namespace tad {
namespace {

/// The logits of one call, as rows.
struct Logits {
  at::Tensor student;
  OptionalTensor teacher;

  Logits(const at::Tensor& student_logits, const OptionalTensor& teacher_logits, double kl_weight) {
    check_logits(student_logits, "student_logits");
    student = as_rows(student_logits);
    TORCH_CHECK_VALUE(
        teacher_logits || kl_weight == 0, "teacher_logits is None, expected logits because kl_weight is ", kl_weight);
    if (!teacher_logits) return;
    check_logits(*teacher_logits, "teacher_logits");
    check_same_device(*teacher_logits, "teacher_logits", student_logits, "student_logits");
    TORCH_CHECK_VALUE(
        teacher_logits->size(-1) == student_logits.size(-1), "teacher_logits has shape ", teacher_logits->sizes(),
        ", expected a vocabulary of ", student_logits.size(-1), " like student_logits");
    teacher = as_rows(*teacher_logits);
  }

  /// The kernels' view of the entries on these logits, checked.
  TadLossArguments arguments(
      const TadEntries& entries, const at::Tensor& labels, const at::Tensor& student_logits) const {
    const auto rows_shape = student_logits.sizes().slice(0, student_logits.dim() - 1);
    TORCH_CHECK_VALUE(
        entries.has_student_rows() || labels.dim() == 1 || labels.sizes() == rows_shape, "labels has shape ",
        labels.sizes(), ", expected ", rows_shape, " like the rows of student_logits");
    entries.check_rows(student.size(1), student.size(0), teacher ? std::optional(teacher->size(0)) : std::nullopt);
    TadLossArguments a = entries.arguments();
    a.student = rows_view(student);
    if (teacher) a.teacher = rows_view(*teacher);
    a.vocabulary = student.size(1);
    return a;
  }
};

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> tad_loss(
    const at::Tensor& student_logits, const OptionalTensor& teacher_logits, const at::Tensor& labels,
    const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight, double temperature,
    const OptionalTensor& row_weight, const OptionalTensor& student_rows, const OptionalTensor& teacher_rows,
    const OptionalTensor& near_count, const OptionalTensor& distant_count) {
  const Logits logits(student_logits, teacher_logits, kl_weight);
  TadEntries entries(
      student_logits, "student_logits", labels, steps_to_reveal, row_weight, student_rows, teacher_rows,
      {ce_weight, kl_weight, temperature, delta});
  entries.set_denominators(near_count, distant_count);
  const TadLossArguments a = logits.arguments(entries, labels, student_logits);
  const auto backend = backend_for(student_logits);

  const TadResult result(logits.student);
  const at::Tensor row_sums = at::empty({entries.size(), 4}, logits.student.options().dtype(real_type(student_logits)));
  const at::Tensor losses = at::empty({entries.size()}, logits.student.options().dtype(at::kDouble));
  backend->tad_loss(a, losses.mutable_data_ptr<double>(), row_sums.mutable_data_ptr());
  backend->tad_totals(a, losses.const_data_ptr<double>(), result.view());
  return {result.loss, result.ce, result.kl, result.near_count, result.distant_count, row_sums};
}

at::Tensor tad_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& student_logits, const OptionalTensor& teacher_logits,
    const at::Tensor& labels, const at::Tensor& steps_to_reveal, const at::Tensor& row_sums, int64_t delta,
    double ce_weight, double kl_weight, double temperature, const OptionalTensor& row_weight,
    const OptionalTensor& student_rows, const OptionalTensor& teacher_rows, const at::Tensor& near_count,
    const at::Tensor& distant_count) {
  const Logits logits(student_logits, teacher_logits, kl_weight);
  TadEntries entries(
      student_logits, "student_logits", labels, steps_to_reveal, row_weight, student_rows, teacher_rows,
      {ce_weight, kl_weight, temperature, delta});
  entries.set_denominators(near_count, distant_count);
  const TadLossArguments a = logits.arguments(entries, labels, student_logits);
  TORCH_CHECK_VALUE(
      row_sums.dim() == 2 && row_sums.size(0) == entries.size() && row_sums.size(1) == 4 && row_sums.is_contiguous() &&
          row_sums.scalar_type() == real_type(student_logits),
      "row_sums has shape ", row_sums.sizes(), " and dtype ", row_sums.scalar_type(),
      ", expected what tad_loss returned for these entries");
  check_same_device(row_sums, "row_sums", student_logits, "student_logits");
  TORCH_CHECK_VALUE(grad_loss.numel() == 1, "grad_loss has shape ", grad_loss.sizes(), ", expected a 0-d tensor");
  check_same_device(grad_loss, "grad_loss", student_logits, "student_logits");
  const at::Tensor outer = grad_loss.to(real_type(student_logits));
  const auto backend = backend_for(student_logits);

  const at::Tensor gradient = at::empty(student_logits.sizes(), student_logits.options().memory_format(std::nullopt));
  const MutableRows target = mutable_rows_view(as_rows(gradient));
  backend->tad_gradient(a, row_sums.const_data_ptr(), outer.const_data_ptr(), target);
  return gradient;
}

}  // namespace tad
