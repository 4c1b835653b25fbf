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

/// Keeps arguments of an operator for backward: tensors as autograd saves them, numbers beside them.
template <class... Arguments>
void save_arguments(AutogradContext* ctx, const Arguments&... arguments) {
  variable_list tensors;
  c10::impl::GenericList numbers(c10::AnyType::get());
  tensors.reserve(sizeof...(Arguments));
  numbers.reserve(sizeof...(Arguments));
  const auto save = [&](const auto& argument) {
    using Argument = std::decay_t<decltype(argument)>;
    if constexpr (std::is_same_v<Argument, at::Tensor>) {
      tensors.push_back(argument);
    } else if constexpr (std::is_same_v<Argument, OptionalTensor>) {
      tensors.push_back(argument.value_or(at::Tensor()));
    } else {
      numbers.push_back(argument);
    }
  };
  (save(arguments), ...);
  ctx->save_for_backward(std::move(tensors));
  if (!numbers.empty()) ctx->saved_data["numbers"] = std::move(numbers);
}

/// Calls an operator with `first` and, behind it, as many as it takes of the arguments that were kept.
template <class Result, class First, class... Arguments>
Result call_saved(
    const c10::TypedOperatorHandle<Result(First, Arguments...)>& op, const AutogradContext& ctx,
    const variable_list& tensors, const at::Tensor& first) {
  const auto numbers = ctx.saved_data.find("numbers");  // not there where none was kept
  size_t tensor = 0, number = 0;
  const auto next = [&]<class Argument>(std::type_identity<Argument>) -> Argument {
    if constexpr (std::is_same_v<Argument, at::Tensor>) {
      return tensors[tensor++];
    } else if constexpr (std::is_same_v<Argument, OptionalTensor>) {
      const at::Tensor& saved = tensors[tensor++];
      return saved.defined() ? OptionalTensor(saved) : std::nullopt;
    } else {
      return numbers->second.toListRef()[number++].template to<Argument>();
    }
  };
  const std::tuple<std::decay_t<Arguments>...> kept{next(std::type_identity<std::decay_t<Arguments>>())...};
  return std::apply([&](const auto&... each) { return op.call(first, each...); }, kept);
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
