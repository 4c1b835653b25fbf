// What the operators' derivatives share. They are in C++, because a Python autograd function costs more than the
// kernels of a few rows; in reverse mode, once.
#pragma once

#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "checks.h"

namespace tad {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The operator of that name, as the dispatcher has it: for whatever device, or for a compiler that is tracing.
template <class Operator>
auto dispatched(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Operator>();
}

/// Calls what lies below the derivative of a `Function`.
template <class Function, class... Arguments>
auto below(const Arguments&... arguments) {
  static const auto op = dispatched<typename Function::Operator>(Function::kName);
  const at::AutoDispatchBelowADInplaceOrView guard;
  return op.call(arguments...);
}

template <class Operator>
struct Signature;
template <class R, class... Arguments>
struct Signature<R(Arguments...)> {
  using Results = R;
  static constexpr size_t kArguments = sizeof...(Arguments);
};

// A Function's forward takes the operator's results, to be filled, and its arguments. It returns the one result that
// has a derivative: what it returned beside would have to be marked as not differentiable, which compiled autograd does
// not take.

/// What a Function's backward returns: the gradients of some of the operator's arguments, by their numbers.
template <class Function>
variable_list gradients(std::initializer_list<std::pair<size_t, at::Tensor>> given = {}) {
  variable_list all(1 + Signature<typename Function::Operator>::kArguments);
  for (const auto& [argument, gradient] : given) all[1 + argument] = gradient;
  return all;
}

/// A tensor argument that may be missing, as autograd saves it, and back.
inline at::Tensor or_undefined(const OptionalTensor& tensor) {
  return tensor.value_or(at::Tensor());
}
inline OptionalTensor if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

bool requires_grad(const at::Tensor& tensor);
bool has_tangent(const at::Tensor& tensor);

/// Whether `holds` of an argument that is a tensor, missing or not.
template <class Argument>
bool of_tensor(bool (*holds)(const at::Tensor&), const Argument& argument) {
  if constexpr (std::is_same_v<Argument, OptionalTensor>) return argument && holds(*argument);
  if constexpr (std::is_same_v<Argument, at::Tensor>) return holds(argument);
  return false;
}

/// No operator has a derivative in forward mode: a tangent would be lost.
void check_no_tangent(bool any, const char* name);

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
    std::get<0>(results) = Function::apply(&results, arguments...);
    return results;
  }
};

}  // namespace tad
