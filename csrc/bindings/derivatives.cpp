#include "derivatives.h"

#include <torch/csrc/autograd/autograd_not_implemented_fallback.h>

#include "registration.h"

namespace tad {

bool requires_grad(const at::Tensor& tensor) {
  return tensor.defined() && tensor.requires_grad();
}

bool has_tangent(const at::Tensor& tensor) {
  return tensor.defined() && tensor._fw_grad(/*level=*/0).defined();
}

void check_no_tangent(bool any, const char* name) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      !any, "forward-mode derivative of ", name, " is not implemented, expected arguments without tangents");
}

static void call_constant(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
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

torch::CppFunction without_derivative() {
  return torch::CppFunction::makeFromBoxedFunction<&call_constant>();
}

torch::CppFunction once_only() {
  return torch::autograd::autogradNotImplementedFallback();
}

}  // namespace tad
