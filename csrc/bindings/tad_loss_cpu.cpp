// tad_loss and tad_loss_backward on the CPU.
#include <torch/library.h>

#include "../cpu/kernels.h"
#include "checks.h"
#include "parallel.h"
#include "tad_entries.h"

namespace tad {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

struct Logits {
  at::Tensor student;  // as_rows
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

  void check(const TadEntries& entries, const at::Tensor& labels, const at::Tensor& student_logits) const {
    const auto rows_shape = student_logits.sizes().slice(0, student_logits.dim() - 1);
    TORCH_CHECK_VALUE(
        entries.student_rows() || labels.dim() == 1 || labels.sizes() == rows_shape, "labels has shape ",
        labels.sizes(), ", expected ", rows_shape, " like the rows of student_logits");
    entries.check_indices(student.size(1), student.size(0), teacher ? std::optional(teacher->size(0)) : std::nullopt);
  }

  void describe(TadLossArguments& a) const {
    a.student = rows_view(student);
    if (teacher) a.teacher = rows_view(*teacher);
    a.vocabulary = student.size(1);
  }

  at::ScalarType real() const { return student.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }
};

using LossResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

LossResult tad_loss(
    const at::Tensor& student_logits, const OptionalTensor& teacher_logits, const at::Tensor& labels,
    const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight, double temperature,
    const OptionalTensor& row_weight, const OptionalTensor& student_rows, const OptionalTensor& teacher_rows,
    const OptionalTensor& near_count, const OptionalTensor& distant_count) {
  const Logits logits(student_logits, teacher_logits, kl_weight);
  const TadEntries entries(
      labels, steps_to_reveal, row_weight, student_rows, teacher_rows, {ce_weight, kl_weight, temperature, delta});
  logits.check(entries, labels, student_logits);
  const double near_denominator = denominator(near_count, "near_count", entries.near());
  const double distant_denominator = denominator(distant_count, "distant_count", entries.distant());

  TadLossArguments arguments = entries.arguments();
  logits.describe(arguments);
  at::Tensor row_sums = at::empty({entries.size(), 4}, logits.student.options().dtype(logits.real()));
  at::Tensor losses = at::empty({entries.size()}, logits.student.options().dtype(at::kDouble));
  double* loss_of = losses.mutable_data_ptr<double>();
  AT_DISPATCH_FLOATING_TYPES(logits.real(), "tad_loss", [&] {
    auto* sums = reinterpret_cast<TadRowSums<scalar_t>*>(row_sums.mutable_data_ptr<scalar_t>());
    const auto& kernels = cpu_kernels().of<scalar_t>();
    parallel_rows(
        entries.size(), [&](int64_t entry) { kernels.tad_loss(arguments, entry, loss_of + entry, sums + entry); });
  });
  auto [loss, ce, kl] = entries.reduce(losses, near_denominator, distant_denominator, logits.real());
  return {loss, ce, kl, count_tensor(entries.near()), count_tensor(entries.distant()), row_sums};
}

at::Tensor tad_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& student_logits, const OptionalTensor& teacher_logits,
    const at::Tensor& labels, const at::Tensor& steps_to_reveal, const at::Tensor& row_sums, int64_t delta,
    double ce_weight, double kl_weight, double temperature, const OptionalTensor& row_weight,
    const OptionalTensor& student_rows, const OptionalTensor& teacher_rows, const at::Tensor& near_count,
    const at::Tensor& distant_count) {
  const Logits logits(student_logits, teacher_logits, kl_weight);
  const TadEntries entries(
      labels, steps_to_reveal, row_weight, student_rows, teacher_rows, {ce_weight, kl_weight, temperature, delta});
  logits.check(entries, labels, student_logits);
  TORCH_CHECK_VALUE(
      row_sums.dim() == 2 && row_sums.size(0) == entries.size() && row_sums.size(1) == 4 && row_sums.is_contiguous(),
      "row_sums has shape ", row_sums.sizes(), ", expected what tad_loss returned for these entries");
  const double near_denominator = denominator(near_count, "near_count", 0);
  const double distant_denominator = denominator(distant_count, "distant_count", 0);
  const double outer = grad_loss.item<double>();

  at::Tensor gradient = at::empty(student_logits.sizes(), student_logits.options().memory_format(std::nullopt));
  const at::Tensor gradient_rows = as_rows(gradient);
  const MutableRows target = mutable_rows_view(gradient_rows);
  const size_t row_bytes = gradient_rows.size(1) * gradient.element_size();
  TadLossArguments arguments = entries.arguments();
  logits.describe(arguments);
  AT_DISPATCH_FLOATING_TYPES(logits.real(), "tad_loss_backward", [&] {
    const auto* sums = reinterpret_cast<const TadRowSums<scalar_t>*>(row_sums.const_data_ptr<scalar_t>());
    const auto& kernels = cpu_kernels().of<scalar_t>();
    const auto write = [&](int64_t entry, int64_t row, bool add) {
      const auto scale = scalar_t(outer * entries.gradient_scale(entry, near_denominator, distant_denominator));
      kernels.tad_gradient(arguments, entry, sums[entry], scale, target, row, add);
    };
    write_gradient_rows(target, gradient_rows.size(0), row_bytes, entries.student_rows(), entries.size(), write);
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(tad_ext, CPU, m) {
  m.impl("tad_loss", tad_loss);
  m.impl("tad_loss_backward", tad_loss_backward);
}

}  // namespace tad
