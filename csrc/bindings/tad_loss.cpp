// tad_loss, tad_loss_gradient and scale_gradient.
#include "backend.h"
#include "checks.h"
#include "kept_memory.h"
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

/// A 0-d factor in the type of the sums.
at::Tensor checked_factor(const at::Tensor& factor, const char* name, const at::Tensor& like, const char* like_name) {
  TORCH_CHECK_VALUE(factor.numel() == 1, name, " has shape ", factor.sizes(), ", expected a 0-d tensor");
  check_same_device(factor, name, like, like_name);
  return factor.reshape({}).to(real_type(like));
}

/// Runs one visit of the logits and returns the gradient, in the shape and dtype of the student's logits.
at::Tensor visit_with_gradient(
    const Backend& backend, TadLossArguments a, const at::Tensor& student_logits, const TadResult& result,
    double* losses, const void* grad_loss) {
  backend.tad_totals(a, nullptr, result.counts());
  a.near_count = result.near_count.const_data_ptr<int64_t>();
  a.distant_count = result.distant_count.const_data_ptr<int64_t>();
  const at::Tensor gradient = empty_kept(student_logits.sizes(), student_logits.options().memory_format(std::nullopt));
  const TadGradient target{mutable_rows_view(as_rows(gradient)), grad_loss};
  backend.tad_loss(a, losses, &target);
  return gradient;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> tad_loss(
    const at::Tensor& student_logits, const OptionalTensor& teacher_logits, const at::Tensor& labels,
    const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight, double temperature,
    const OptionalTensor& row_weight, const OptionalTensor& student_rows, const OptionalTensor& teacher_rows,
    const OptionalTensor& near_count, const OptionalTensor& distant_count, bool with_gradient) {
  const Logits logits(student_logits, teacher_logits, kl_weight);
  TadEntries entries(
      student_logits, "student_logits", labels, steps_to_reveal, row_weight, student_rows, teacher_rows,
      {ce_weight, kl_weight, temperature, delta});
  entries.set_denominators(near_count, distant_count);
  const TadLossArguments a = logits.arguments(entries, labels, student_logits);
  const auto backend = backend_for(student_logits);

  const TadResult result(logits.student);
  const at::Tensor losses = at::empty({entries.size()}, logits.student.options().dtype(at::kDouble));
  double* const loss_of_entry = losses.mutable_data_ptr<double>();
  at::Tensor gradient;
  if (with_gradient) {
    gradient = visit_with_gradient(*backend, a, student_logits, result, loss_of_entry, nullptr);
  } else {
    gradient = at::empty({0}, student_logits.options().memory_format(std::nullopt));
    backend->tad_loss(a, loss_of_entry, nullptr);
  }
  backend->tad_totals(a, loss_of_entry, result.view());
  return {result.loss, result.ce, result.kl, result.near_count, result.distant_count, gradient};
}

at::Tensor tad_loss_gradient(
    const at::Tensor& grad_loss, const at::Tensor& student_logits, const OptionalTensor& teacher_logits,
    const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight,
    double temperature, const OptionalTensor& row_weight, const OptionalTensor& student_rows,
    const OptionalTensor& teacher_rows, const OptionalTensor& near_count, const OptionalTensor& distant_count) {
  const Logits logits(student_logits, teacher_logits, kl_weight);
  TadEntries entries(
      student_logits, "student_logits", labels, steps_to_reveal, row_weight, student_rows, teacher_rows,
      {ce_weight, kl_weight, temperature, delta});
  entries.set_denominators(near_count, distant_count);
  const TadLossArguments a = logits.arguments(entries, labels, student_logits);
  const at::Tensor outer = checked_factor(grad_loss, "grad_loss", student_logits, "student_logits");
  return visit_with_gradient(
      *backend_for(student_logits), a, student_logits, TadResult(logits.student), nullptr, outer.const_data_ptr());
}

void scale_gradient(at::Tensor& gradient, const at::Tensor& grad_loss) {
  check_logits(gradient, "gradient");
  TORCH_CHECK_VALUE(
      gradient.is_contiguous(), "gradient has strides ", gradient.strides(), ", expected contiguous memory");
  const at::Tensor factor = checked_factor(grad_loss, "grad_loss", gradient, "gradient");
  if (gradient.numel() > 0) backend_for(gradient)->scale(gradient, factor);
}

}  // namespace tad
