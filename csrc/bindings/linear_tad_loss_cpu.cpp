// linear_tad_loss on the CPU: the loss of `hidden @ weight.T` without ever holding more than one chunk of logits.
#include <torch/library.h>

#include "../cpu/kernels.h"
#include "checks.h"
#include "parallel.h"
#include "tad_entries.h"
#include "tiled_mm.h"

namespace tad {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

void check_hidden(const at::Tensor& hidden, const char* name, const at::Tensor& weight) {
  check_logits(hidden, name);
  TORCH_CHECK_VALUE(
      hidden.dim() == 2 && hidden.size(1) == weight.size(1), name, " has shape ", hidden.sizes(), ", expected (rows, ",
      weight.size(1), ") to go with lm_head_weight ", weight.sizes());
  TORCH_CHECK_TYPE(
      hidden.scalar_type() == weight.scalar_type(), name, " has dtype ", hidden.scalar_type(), ", expected ",
      weight.scalar_type(), " like lm_head_weight");
}

/// The losses of entries [begin, end), and in place of `logits` their gradient where `with_gradient`.
template <class Real>
void visit_chunk(
    const TadEntries& entries, TadLossArguments arguments, const std::vector<int64_t>& teacher_of, int64_t begin,
    int64_t end, const at::Tensor& logits, const at::Tensor& teacher_logits, double near_denominator,
    double distant_denominator, bool with_gradient, double* losses) {
  arguments.student = rows_view(logits);
  if (teacher_logits.defined()) arguments.teacher = rows_view(teacher_logits);
  arguments.vocabulary = logits.size(1);
  arguments.labels += begin;
  arguments.steps += begin;
  arguments.teacher_rows = teacher_of.data();
  const MutableRows target = mutable_rows_view(logits);
  const auto& kernels = cpu_kernels().of<Real>();
  parallel_rows(end - begin, [&](int64_t i) {
    TadRowSums<Real> sums;
    kernels.tad_loss(arguments, i, losses + begin + i, &sums);
    if (!with_gradient) return;
    const Real scale = Real(entries.gradient_scale(begin + i, near_denominator, distant_denominator));
    kernels.tad_gradient(arguments, i, sums, scale, target, i, /*add=*/false);
  });
}

using LossResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

LossResult linear_tad_loss(
    const at::Tensor& student_hidden, const OptionalTensor& teacher_hidden, const at::Tensor& lm_head_weight,
    const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight,
    double temperature, const OptionalTensor& row_weight, const OptionalTensor& teacher_rows,
    const OptionalTensor& near_count, const OptionalTensor& distant_count, int64_t chunk_rows, bool hidden_grad,
    bool weight_grad) {
  check_logits(lm_head_weight, "lm_head_weight");
  TORCH_CHECK_VALUE(
      lm_head_weight.dim() == 2, "lm_head_weight has shape ", lm_head_weight.sizes(), ", expected (vocabulary, D)");
  check_hidden(student_hidden, "student_hidden", lm_head_weight);
  TORCH_CHECK_VALUE(
      teacher_hidden || kl_weight == 0, "teacher_hidden is None, expected hidden rows because kl_weight is ",
      kl_weight);
  if (teacher_hidden) check_hidden(*teacher_hidden, "teacher_hidden", lm_head_weight);
  TORCH_CHECK_VALUE(chunk_rows >= 1, "chunk_rows is ", chunk_rows, ", expected an integer >= 1");
  const TadEntries entries(
      labels, steps_to_reveal, row_weight, std::nullopt, teacher_rows, {ce_weight, kl_weight, temperature, delta});
  entries.check_indices(
      lm_head_weight.size(0), student_hidden.size(0),
      teacher_hidden ? std::optional(teacher_hidden->size(0)) : std::nullopt);
  const double near_denominator = denominator(near_count, "near_count", entries.near());
  const double distant_denominator = denominator(distant_count, "distant_count", entries.distant());

  const bool is_double = student_hidden.scalar_type() == at::kDouble;
  const auto real = is_double ? at::kDouble : at::kFloat;
  at::Tensor losses = at::empty({entries.size()}, student_hidden.options().dtype(at::kDouble));
  at::Tensor grad_hidden = hidden_grad ? at::empty_like(student_hidden, at::MemoryFormat::Contiguous)
                                       : at::empty({0}, student_hidden.options());
  at::Tensor grad_weight = weight_grad ? at::zeros(lm_head_weight.sizes(), lm_head_weight.options().dtype(real))
                                       : at::empty({0}, lm_head_weight.options());
  for (int64_t begin = 0; begin < entries.size(); begin += chunk_rows) {
    const int64_t end = std::min(begin + chunk_rows, entries.size());
    const at::Tensor hidden = pad_to_tiles(student_hidden.slice(0, begin, end));
    const at::Tensor logits = tiled_mm(hidden, lm_head_weight.t());
    std::vector<int64_t> teacher_of(end - begin, 0), teacher_source;
    for (int64_t i = begin; teacher_hidden && i < end; ++i) {
      if (!entries.is_distant(i)) continue;
      teacher_of[i - begin] = int64_t(teacher_source.size());
      teacher_source.push_back(entries.teacher_row(i));
    }
    at::Tensor teacher_logits;
    if (!teacher_source.empty()) {
      const at::Tensor chosen = teacher_hidden->index_select(0, at::tensor(teacher_source, labels.options()));
      teacher_logits = tiled_mm(pad_to_tiles(chosen), lm_head_weight.t());
    }
    AT_DISPATCH_FLOATING_TYPES(real, "linear_tad_loss", [&] {
      visit_chunk<scalar_t>(
          entries, entries.arguments(), teacher_of, begin, end, logits, teacher_logits, near_denominator,
          distant_denominator, hidden_grad || weight_grad, losses.mutable_data_ptr<double>());
    });
    // The rows that pad the chunk are zero in `hidden` and so in `logits`: they add nothing.
    if (hidden_grad) grad_hidden.slice(0, begin, end).copy_(tiled_mm(logits, lm_head_weight).narrow(0, 0, end - begin));
    if (weight_grad) grad_weight.add_(tiled_mm(logits.t(), hidden));
  }
  auto [loss, ce, kl] = entries.reduce(losses, near_denominator, distant_denominator, real);
  return {
      loss,
      ce,
      kl,
      count_tensor(entries.near()),
      count_tensor(entries.distant()),
      grad_hidden,
      grad_weight.to(lm_head_weight.scalar_type())};
}

std::tuple<at::Tensor, at::Tensor> linear_tad_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& grad_hidden, const at::Tensor& grad_weight, const at::Tensor&,
    const at::Tensor&) {
  return {grad_hidden * grad_loss, grad_weight * grad_loss};
}

}  // namespace

TORCH_LIBRARY_IMPL(tad_ext, CPU, m) {
  m.impl("linear_tad_loss", linear_tad_loss);
  m.impl("linear_tad_loss_backward", linear_tad_loss_backward);
}

}  // namespace tad
