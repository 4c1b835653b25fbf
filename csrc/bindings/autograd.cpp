// Derivatives of the operators. In C++, because a Python autograd function costs more than the kernels of a few rows.
#include <ATen/TensorSubclassLikeUtils.h>
#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "operators.h"

namespace tad {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The operator of that name, as the dispatcher has it: for whatever device, or for a compiler that is tracing.
template <class Operator>
auto dispatched(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Operator>();
}

template <class... Tensors>
variable_list listed(const std::tuple<Tensors...>& tensors) {
  return std::apply([](const auto&... each) { return variable_list{each...}; }, tensors);
}

/// A tensor argument that may be missing, as autograd saves it, and back.
at::Tensor or_undefined(const OptionalTensor& tensor) {
  return tensor.value_or(at::Tensor());
}
OptionalTensor if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

/// One gradient per argument of a forward, of which only some have one.
variable_list gradients(size_t arguments, std::initializer_list<std::pair<size_t, at::Tensor>> given = {}) {
  variable_list all(arguments);
  for (const auto& [i, gradient] : given) all[i] = gradient;
  return all;
}

/// Calls what lies below the derivative of a `Function`.
template <class Function, class... Arguments>
auto below(const Arguments&... arguments) {
  static const auto op = dispatched<typename Function::Operator>(Function::kName);
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(arguments...);
}

class TadLossFunction : public torch::autograd::Function<TadLossFunction> {
 public:
  using Operator = decltype(tad_loss);
  static constexpr const char* kName = "tad_ext::tad_loss";

  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& student_logits, const OptionalTensor& teacher_logits,
      const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight,
      double temperature, const OptionalTensor& row_weight, const OptionalTensor& student_rows,
      const OptionalTensor& teacher_rows, const OptionalTensor& near_count, const OptionalTensor& distant_count,
      bool with_gradient) {
    const variable_list results = listed(
        below<TadLossFunction>(
            student_logits, teacher_logits, labels, steps_to_reveal, delta, ce_weight, kl_weight, temperature,
            row_weight, student_rows, teacher_rows, near_count, distant_count, with_gradient));
    ctx->mark_non_differentiable({results.begin() + 1, results.end()});
    ctx->set_materialize_grads(false);
    ctx->save_for_backward(
        {student_logits, or_undefined(teacher_logits), labels, steps_to_reveal, or_undefined(row_weight),
         or_undefined(student_rows), or_undefined(teacher_rows), or_undefined(near_count),
         or_undefined(distant_count)});
    ctx->saved_data["delta"] = delta;
    ctx->saved_data["weights"] = std::vector<double>{ce_weight, kl_weight, temperature};
    if (with_gradient) ctx->saved_data["gradient"] = results.back();
    return results;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    constexpr size_t kArguments = 14;
    const at::Tensor& grad_loss = outer[0];
    if (!grad_loss.defined()) return gradients(kArguments);
    const bool in_forward = ctx->saved_data.count("gradient") > 0;
    if (!in_forward || at::GradMode::is_enabled())  // the latter: so that double backward is noticed
      return gradients(kArguments, {{0, recomputed(*ctx, grad_loss)}});
    // The gradient that forward left is given away, once: whoever gets it may write into it. A retained graph computes
    // it again, in the same way.
    c10::IValue& left = ctx->saved_data["gradient"];
    at::Tensor gradient = left.isTensor() ? left.toTensor() : recomputed(*ctx, at::ones_like(grad_loss));
    left = c10::IValue();
    // While a compiler traces: what it makes of it must not write into what forward left.
    if (at::isTensorSubclassLike(gradient)) return gradients(kArguments, {{0, gradient * grad_loss}});
    static const auto scale = dispatched<decltype(scale_gradient)>("tad_ext::scale_gradient");
    scale.call(gradient, grad_loss);
    return gradients(kArguments, {{0, gradient}});
  }

 private:
  static at::Tensor recomputed(AutogradContext& ctx, const at::Tensor& grad_loss) {
    static const auto op = dispatched<decltype(tad_loss_gradient)>("tad_ext::tad_loss_gradient");
    const variable_list saved = ctx.get_saved_variables();
    const std::vector<double> weights = ctx.saved_data["weights"].toDoubleVector();
    return op.call(
        grad_loss, saved[0], if_defined(saved[1]), saved[2], saved[3], ctx.saved_data["delta"].toInt(), weights[0],
        weights[1], weights[2], if_defined(saved[4]), if_defined(saved[5]), if_defined(saved[6]), if_defined(saved[7]),
        if_defined(saved[8]));
  }
};

class LinearTadLossFunction : public torch::autograd::Function<LinearTadLossFunction> {
 public:
  using Operator = decltype(linear_tad_loss);
  static constexpr const char* kName = "tad_ext::linear_tad_loss";

  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& student_hidden, const OptionalTensor& teacher_hidden,
      const at::Tensor& lm_head_weight, const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta,
      double ce_weight, double kl_weight, double temperature, const OptionalTensor& row_weight,
      const OptionalTensor& teacher_rows, const OptionalTensor& near_count, const OptionalTensor& distant_count,
      int64_t chunk_rows, bool hidden_grad, bool weight_grad) {
    const variable_list results = listed(
        below<LinearTadLossFunction>(
            student_hidden, teacher_hidden, lm_head_weight, labels, steps_to_reveal, delta, ce_weight, kl_weight,
            temperature, row_weight, teacher_rows, near_count, distant_count, chunk_rows, hidden_grad, weight_grad));
    ctx->mark_non_differentiable({results.begin() + 1, results.end()});
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({results[5], results[6], student_hidden, lm_head_weight});
    ctx->saved_data["hidden_grad"] = hidden_grad;
    ctx->saved_data["weight_grad"] = weight_grad;
    return results;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    constexpr size_t kArguments = 16;
    if (!outer[0].defined()) return gradients(kArguments);
    static const auto op = dispatched<decltype(linear_tad_loss_backward)>("tad_ext::linear_tad_loss_backward");
    const variable_list saved = ctx->get_saved_variables();
    const auto [grad_hidden, grad_weight] = op.call(outer[0], saved[0], saved[1], saved[2], saved[3]);
    return gradients(
        kArguments, {{0, ctx->saved_data["hidden_grad"].toBool() ? grad_hidden : at::Tensor()},
                     {2, ctx->saved_data["weight_grad"].toBool() ? grad_weight : at::Tensor()}});
  }
};

class LogSoftmaxFunction : public torch::autograd::Function<LogSoftmaxFunction> {
 public:
  using Operator = decltype(masked_log_softmax);
  static constexpr const char* kName = "tad_ext::masked_log_softmax";

  static variable_list forward(
      AutogradContext* ctx, const at::Tensor& logits, const OptionalTensor& rows, double temperature,
      at::ScalarType dtype) {
    const variable_list results = listed(below<LogSoftmaxFunction>(logits, rows, temperature, dtype));
    ctx->mark_non_differentiable({results[1]});
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({logits, or_undefined(rows), results[1]});
    ctx->saved_data["temperature"] = temperature;
    return results;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    constexpr size_t kArguments = 4;
    if (!outer[0].defined()) return gradients(kArguments);
    static const auto op = dispatched<decltype(masked_log_softmax_backward)>("tad_ext::masked_log_softmax_backward");
    const variable_list saved = ctx->get_saved_variables();
    return gradients(
        kArguments,
        {{0, op.call(outer[0], saved[0], if_defined(saved[1]), saved[2], ctx->saved_data["temperature"].toDouble())}});
  }
};

template <class Argument>
bool requires_grad(const Argument& argument) {
  if constexpr (std::is_same_v<Argument, OptionalTensor>) return requires_grad(or_undefined(argument));
  if constexpr (std::is_same_v<Argument, at::Tensor>) return argument.defined() && argument.requires_grad();
  return false;
}

/// An operator for tensors of which some may require gradients.
template <class Function, class Operator = typename Function::Operator>
struct Differentiable;
template <class Function, class... Results, class... Arguments>
struct Differentiable<Function, std::tuple<Results...>(Arguments...)> {
  static std::tuple<Results...> call(Arguments... arguments) {
    if (!at::GradMode::is_enabled() || !(requires_grad(arguments) || ...)) return below<Function>(arguments...);
    return as_tuple(Function::apply(arguments...), std::index_sequence_for<Results...>());
  }

 private:
  template <size_t... kResults>
  static std::tuple<Results...> as_tuple(const variable_list& results, std::index_sequence<kResults...>) {
    return {results[kResults]...};
  }
};

}  // namespace
}  // namespace tad

TORCH_LIBRARY_IMPL(tad_ext, Autograd, m) {
  using namespace tad;
  m.impl("tad_loss", Differentiable<TadLossFunction>::call);
  m.impl("linear_tad_loss", Differentiable<LinearTadLossFunction>::call);
  m.impl("masked_log_softmax", Differentiable<LogSoftmaxFunction>::call);
  // Differentiating once more is an error.
  for (const char* backward : {"tad_loss_gradient", "linear_tad_loss_backward", "masked_log_softmax_backward"})
    m.impl(backward, torch::autograd::autogradNotImplementedFallback());
}
