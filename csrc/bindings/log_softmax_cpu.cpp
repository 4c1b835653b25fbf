// masked_log_softmax and its backward on the CPU.
#include <torch/library.h>

#include "../cpu/kernels.h"
#include "checks.h"
#include "parallel.h"

namespace tad {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

struct ChosenRows {
  at::Tensor logits;  // as_rows
  OptionalTensor rows;
  int64_t count;

  ChosenRows(const at::Tensor& all_logits, const OptionalTensor& chosen, double temperature) {
    check_logits(all_logits, "logits");
    check_temperature(temperature);
    logits = as_rows(all_logits);
    if (chosen) {
      check_int64(*chosen, "rows");
      TORCH_CHECK_VALUE(chosen->dim() == 1, "rows has shape ", chosen->sizes(), ", expected (N,)");
      check_range(*chosen, "rows", 0, logits.size(0), "rows of logits");
    }
    rows = flattened(chosen);
    count = rows ? rows->numel() : logits.size(0);
  }

  LogSoftmaxArguments arguments(double temperature) const {
    return {rows_view(logits), logits.size(1), pointer_or_null<int64_t>(rows), temperature};
  }

  at::ScalarType real() const { return logits.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }
};

std::tuple<at::Tensor, at::Tensor> masked_log_softmax(
    const at::Tensor& logits, const OptionalTensor& rows, double temperature, at::ScalarType dtype) {
  const ChosenRows chosen(logits, rows, temperature);
  at::Tensor out = at::empty({chosen.count, chosen.logits.size(1)}, logits.options().dtype(dtype));
  check_logits(out, "dtype: the result");
  at::Tensor normalizers = at::empty({chosen.count, 2}, logits.options().dtype(chosen.real()));
  const LogSoftmaxArguments arguments = chosen.arguments(temperature);
  const MutableRows target = mutable_rows_view(out);
  AT_DISPATCH_FLOATING_TYPES(chosen.real(), "masked_log_softmax", [&] {
    scalar_t* normalizer = normalizers.mutable_data_ptr<scalar_t>();
    const auto& kernels = cpu_kernels().of<scalar_t>();
    parallel_rows(chosen.count, [&](int64_t i) { kernels.log_softmax(arguments, i, target, normalizer + 2 * i); });
  });
  return {out, normalizers};
}

at::Tensor masked_log_softmax_backward(
    const at::Tensor& grad, const at::Tensor& logits, const OptionalTensor& rows, const at::Tensor& normalizers,
    double temperature) {
  const ChosenRows chosen(logits, rows, temperature);
  check_logits(grad, "grad");
  const at::Tensor grad_rows = as_rows(grad);
  TORCH_CHECK_VALUE(
      grad_rows.size(0) == chosen.count && grad_rows.size(1) == chosen.logits.size(1), "grad has shape ", grad.sizes(),
      ", expected (", chosen.count, ", ", chosen.logits.size(1), ")");
  TORCH_CHECK_VALUE(
      normalizers.numel() == 2 * chosen.count && normalizers.scalar_type() == chosen.real(), "normalizers has shape ",
      normalizers.sizes(), ", expected what masked_log_softmax returned for these rows");
  const at::Tensor normalizer_rows = normalizers.contiguous();
  at::Tensor gradient = at::empty(logits.sizes(), logits.options().memory_format(std::nullopt));
  const at::Tensor gradient_rows = as_rows(gradient);
  const MutableRows target = mutable_rows_view(gradient_rows);
  const size_t row_bytes = gradient_rows.size(1) * gradient.element_size();
  const LogSoftmaxArguments arguments = chosen.arguments(temperature);
  AT_DISPATCH_FLOATING_TYPES(chosen.real(), "masked_log_softmax_backward", [&] {
    const scalar_t* normalizer = normalizer_rows.const_data_ptr<scalar_t>();
    const auto& kernels = cpu_kernels().of<scalar_t>();
    const auto write = [&](int64_t entry, int64_t row, bool add) {
      kernels.log_softmax_gradient(arguments, entry, normalizer + 2 * entry, rows_view(grad_rows), target, row, add);
    };
    write_gradient_rows(target, gradient_rows.size(0), row_bytes, arguments.rows, chosen.count, write);
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(tad_ext, CPU, m) {
  m.impl("masked_log_softmax", masked_log_softmax);
  m.impl("masked_log_softmax_backward", masked_log_softmax_backward);
}

}  // namespace tad
