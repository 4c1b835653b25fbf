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

/// A tensor argument that may be missing, as autograd saves it, and back.
at::Tensor or_undefined(const OptionalTensor& tensor) {
  return tensor.value_or(at::Tensor());
}
OptionalTensor if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

// A Function's forward returns the one result that has a derivative and leaves all of them in its last argument: what
// it returned beside would have to be marked as not differentiable, which compiled autograd does not take.

template <class... Results, class... Arguments>
std::tuple<Results...> results_of(std::tuple<Results...> (*)(Arguments...));
template <auto kOperator>
using ResultsOf = decltype(results_of(kOperator));

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

  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& student_logits, const OptionalTensor& teacher_logits,
      const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight,
      double temperature, const OptionalTensor& row_weight, const OptionalTensor& student_rows,
      const OptionalTensor& teacher_rows, const OptionalTensor& near_count, const OptionalTensor& distant_count,
      bool with_gradient, ResultsOf<tad_loss>* results) {
    *results = below<TadLossFunction>(
        student_logits, teacher_logits, labels, steps_to_reveal, delta, ce_weight, kl_weight, temperature, row_weight,
        student_rows, teacher_rows, near_count, distant_count, with_gradient);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward(
        {student_logits, or_undefined(teacher_logits), labels, steps_to_reveal, or_undefined(row_weight),
         or_undefined(student_rows), or_undefined(teacher_rows), or_undefined(near_count),
         or_undefined(distant_count)});
    ctx->saved_data["delta"] = delta;
    ctx->saved_data["weights"] = std::vector<double>{ce_weight, kl_weight, temperature};
    ctx->saved_data["in_forward"] = with_gradient;
    if (with_gradient) {
      ctx->saved_data["gradient"] = std::get<5>(*results);
      ctx->saved_data["version"] = int64_t(std::get<5>(*results)._version());
    }
    return std::get<0>(*results);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    constexpr size_t kArguments = 15;
    // First, whether they are needed or not: logits that were changed are noticed here, a checkpoint brings them back.
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& grad_loss = outer[0];
    if (!grad_loss.defined()) return gradients(kArguments);
    const bool in_forward = ctx->saved_data["in_forward"].toBool();
    if (!in_forward || at::GradMode::is_enabled())  // the latter: so that double backward is noticed
      return gradients(kArguments, {{0, recomputed(*ctx, saved, grad_loss)}});
    // The gradient that forward left is given away, once: whoever gets it may write into it. A retained graph computes
    // it again, in the same way.
    c10::IValue& left = ctx->saved_data["gradient"];
    const bool untouched = left.isTensor() && left.toTensor()._version() == ctx->saved_data["version"].toInt();
    at::Tensor gradient = untouched ? left.toTensor() : recomputed(*ctx, saved, at::ones_like(grad_loss));
    left = c10::IValue();
    // Where others look on, such as a compiler that traces: what it makes of this must not write into what is saved.
    if (at::areAnyTensorSubclassLike({gradient, grad_loss})) return gradients(kArguments, {{0, gradient * grad_loss}});
    gradient.unsafeGetTensorImpl()->bump_version();  // compiled autograd brings `left` back
    static const auto scale = dispatched<decltype(scale_gradient)>("tad_ext::scale_gradient");
    scale.call(gradient, grad_loss);
    return gradients(kArguments, {{0, gradient}});
  }

 private:
  static at::Tensor recomputed(AutogradContext& ctx, const variable_list& saved, const at::Tensor& grad_loss) {
    static const auto op = dispatched<decltype(tad_loss_gradient)>("tad_ext::tad_loss_gradient");
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

  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& student_hidden, const OptionalTensor& teacher_hidden,
      const at::Tensor& lm_head_weight, const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta,
      double ce_weight, double kl_weight, double temperature, const OptionalTensor& row_weight,
      const OptionalTensor& teacher_rows, const OptionalTensor& near_count, const OptionalTensor& distant_count,
      int64_t chunk_rows, bool hidden_grad, bool weight_grad, ResultsOf<linear_tad_loss>* results) {
    hidden_grad |= student_hidden.requires_grad();
    weight_grad |= lm_head_weight.requires_grad();
    *results = below<LinearTadLossFunction>(
        student_hidden, teacher_hidden, lm_head_weight, labels, steps_to_reveal, delta, ce_weight, kl_weight,
        temperature, row_weight, teacher_rows, near_count, distant_count, chunk_rows, hidden_grad, weight_grad);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({std::get<5>(*results), std::get<6>(*results), student_hidden, lm_head_weight});
    ctx->saved_data["hidden_grad"] = hidden_grad;
    ctx->saved_data["weight_grad"] = weight_grad;
    return std::get<0>(*results);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    constexpr size_t kArguments = 17;
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

  static at::Tensor forward(
      AutogradContext* ctx, const at::Tensor& logits, const OptionalTensor& rows, double temperature,
      at::ScalarType dtype, ResultsOf<masked_log_softmax>* results) {
    *results = below<LogSoftmaxFunction>(logits, rows, temperature, dtype);
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({logits, or_undefined(rows), std::get<1>(*results)});
    ctx->saved_data["temperature"] = temperature;
    return std::get<0>(*results);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    constexpr size_t kArguments = 5;
    if (!outer[0].defined()) return gradients(kArguments);
    static const auto op = dispatched<decltype(masked_log_softmax_backward)>("tad_ext::masked_log_softmax_backward");
    const variable_list saved = ctx->get_saved_variables();
    return gradients(
        kArguments,
        {{0, op.call(outer[0], saved[0], if_defined(saved[1]), saved[2], ctx->saved_data["temperature"].toDouble())}});
  }
};

bool requires_grad(const at::Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad();
}
bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}

/// Whether `holds` of an argument that is a tensor, missing or not.
template <class Argument>
bool of_tensor(bool (*holds)(const at::Tensor&), const Argument& argument) {
  if constexpr (std::is_same_v<Argument, OptionalTensor>) return argument && holds(*argument);
  if constexpr (std::is_same_v<Argument, at::Tensor>) return holds(argument);
  return false;
}

/// No operator has a derivative in forward mode: a tangent would be lost.
void check_no_tangent(bool any, const char* name) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !any, "forward-mode derivative of ", name, " is not implemented, expected arguments without tangents");
}

/// An operator for tensors of which some may require gradients.
template <class Function, class Operator = typename Function::Operator>
struct Differentiable;
template <class Function, class... Results, class... Arguments>
struct Differentiable<Function, std::tuple<Results...>(Arguments...)> {
  static std::tuple<Results...> call(Arguments... arguments) {
    check_no_tangent((of_tensor(has_tangent, arguments) || ...), Function::kName);
    if (!at::GradMode::is_enabled() || !(of_tensor(requires_grad, arguments) || ...))
      return below<Function>(arguments...);
    std::tuple<Results...> results;
    std::get<0>(results) = Function::apply(arguments..., &results);
    return results;
  }
};

/// An operator whose results are constants; what it writes to cannot require gradients.
void constant(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto arguments = torch::jit::last(*stack, schema.arguments().size());
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!arguments[i].isTensor()) continue;
    const at::Tensor& tensor = arguments[i].toTensor();
    check_no_tangent(has_tangent(tensor), schema.name().c_str());
    TORCH_CHECK_NOT_IMPLEMENTED(
        !at::GradMode::is_enabled() || !requires_grad(tensor) || !schema.is_mutable({c10::SchemaArgType::input, i}),
        "derivative of ", schema.name(), " is not implemented, expected ", schema.arguments()[i].name(),
        " not to require one because it is written");
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  op.redispatchBoxed(keys & c10::after_ADInplaceOrView_keyset, stack);
}

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
  for (const char* name :
       {"scale_gradient", "token_statistics", "truncate_logits", "commit_reveal", "select_reveal",
        "eligible_positions"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&constant>());
}
