// masked_log_softmax and its backward.
#include "backend.h"
#include "checks.h"
#include "derivatives.h"
#include "kept_memory.h"
#include "registration.h"

namespace tad {

TAD_SCHEMAS(m) {
  m.def(
      "masked_log_softmax(Tensor logits, Tensor? rows, float temperature, ScalarType dtype) "
      "-> (Tensor log_probabilities, Tensor normalizers)");
  m.def(
      "masked_log_softmax_backward(Tensor grad, Tensor logits, Tensor? rows, Tensor normalizers, float temperature) "
      "-> Tensor");
}

namespace {

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
      check_same_device(*chosen, "rows", all_logits, "logits");
      TORCH_CHECK_VALUE(chosen->dim() == 1, "rows has shape ", chosen->sizes(), ", expected (N,)");
      check_range(*chosen, "rows", 0, logits.size(0), "rows of logits");
    }
    rows = flattened(chosen);
    count = rows ? rows->numel() : logits.size(0);
  }

  LogSoftmaxArguments arguments(double temperature) const {
    return {rows_view(logits), logits.size(1), count, pointer_or_null<int64_t>(rows), temperature};
  }
};

std::tuple<at::Tensor, at::Tensor> masked_log_softmax(
    const at::Tensor& logits, const OptionalTensor& rows, double temperature, at::ScalarType dtype) {
  const ChosenRows chosen(logits, rows, temperature);
  const at::Tensor out = empty_kept({chosen.count, chosen.logits.size(1)}, logits.options().dtype(dtype));
  check_logits(out, "dtype: the result");
  const at::Tensor normalizers = at::empty({chosen.count, 2}, logits.options().dtype(real_type(logits)));
  backend_for(logits)->log_softmax(
      chosen.arguments(temperature), mutable_rows_view(out), normalizers.mutable_data_ptr());
  return {out, normalizers};
}

at::Tensor masked_log_softmax_backward(
    const at::Tensor& grad, const at::Tensor& logits, const OptionalTensor& rows, const at::Tensor& normalizers,
    double temperature) {
  const ChosenRows chosen(logits, rows, temperature);
  check_logits(grad, "grad");
  check_same_device(grad, "grad", logits, "logits");
  const at::Tensor grad_rows = as_rows(grad);
  TORCH_CHECK_VALUE(
      grad_rows.size(0) == chosen.count && grad_rows.size(1) == chosen.logits.size(1), "grad has shape ", grad.sizes(),
      ", expected (", chosen.count, ", ", chosen.logits.size(1), ")");
  TORCH_CHECK_VALUE(
      normalizers.numel() == 2 * chosen.count && normalizers.scalar_type() == real_type(logits),
      "normalizers has shape ", normalizers.sizes(), ", expected what masked_log_softmax returned for these rows");
  check_same_device(normalizers, "normalizers", logits, "logits");
  const at::Tensor normalizer_rows = normalizers.contiguous();
  const at::Tensor gradient = empty_kept(logits.sizes(), logits.options().memory_format(std::nullopt));
  backend_for(logits)->log_softmax_gradient(
      chosen.arguments(temperature), normalizer_rows.const_data_ptr(), rows_view(grad_rows),
      mutable_rows_view(as_rows(gradient)));
  return gradient;
}

class LogSoftmaxFunction : public torch::autograd::Function<LogSoftmaxFunction> {
 public:
  using Operator = decltype(masked_log_softmax);
  static constexpr const char* kName = "tad_ext::masked_log_softmax";

  static at::Tensor forward(
      AutogradContext* ctx, Signature<Operator>::Results* results, const at::Tensor& logits, const OptionalTensor& rows,
      double temperature, at::ScalarType dtype) {
    *results = below<LogSoftmaxFunction>(logits, rows, temperature, dtype);
    ctx->set_materialize_grads(false);
    save_arguments(ctx, logits, rows, /*normalizers=*/std::get<1>(*results), temperature);
    return std::get<0>(*results);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    if (!outer[0].defined()) return gradients<LogSoftmaxFunction>();
    static const auto op = dispatched<decltype(masked_log_softmax_backward)>("tad_ext::masked_log_softmax_backward");
    return gradients<LogSoftmaxFunction>({{0, call_saved(op, *ctx, ctx->get_saved_variables(), outer[0])}});
  }
};

}  // namespace

TAD_KERNELS(m) {
  m.impl("masked_log_softmax", masked_log_softmax);
  m.impl("masked_log_softmax_backward", masked_log_softmax_backward);
}

TAD_DERIVATIVES(m) {
  m.impl("masked_log_softmax", Differentiable<LogSoftmaxFunction>::call);
  m.impl("masked_log_softmax_backward", once_only());
}

}  // namespace tad
