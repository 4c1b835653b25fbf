#include "checks.h"

#include <ATen/ExpandUtils.h>

#include <cstdlib>
#include <string_view>

namespace tad {

void check_logits(const at::Tensor& logits, const char* name) {
  const auto type = logits.scalar_type();
  TORCH_CHECK_TYPE(
      type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf, name, " has dtype ",
      type, ", expected float32, bfloat16, float16 or float64");
  TORCH_CHECK_VALUE(
      logits.dim() >= 1 && logits.size(-1) >= 1, name, " has shape ", logits.sizes(),
      ", expected (..., vocabulary) with a vocabulary of at least 1");
  TORCH_CHECK_VALUE(
      logits.size(-1) <= kMaxVocabulary, name, " has shape ", logits.sizes(), ", expected a vocabulary of at most ",
      kMaxVocabulary);
}

void check_int64(const at::Tensor& tensor, const char* name) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == at::kLong, name, " has dtype ", tensor.scalar_type(), ", expected int64");
}

void check_count(const at::Tensor& tensor, const char* name, int64_t count) {
  TORCH_CHECK_VALUE(
      tensor.numel() == count, name, " has shape ", tensor.sizes(), ", expected ", count, " elements, one per entry");
}

void check_same_device(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name) {
  TORCH_CHECK_VALUE(
      tensor.device() == other.device(), name, " is on ", tensor.device(), ", expected ", other.device(), " like ",
      other_name);
}

bool values_may_be_read(const at::Tensor& tensor) {
#if !defined(TAD_CUDA_ON_HOST)  // a test library, in which CPU tensors stand for a GPU's
  if (tensor.is_cpu()) return true;
#endif
  const char* debug = std::getenv("TAD_EXT_DEBUG");
  return debug && std::string_view(debug) == "1";
}

void check_range(const at::Tensor& tensor, const char* name, int64_t low, int64_t high, const char* of_what) {
  if (!values_may_be_read(tensor)) return;
  const at::Tensor values = tensor.cpu().contiguous();
  const int64_t* data = values.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < values.numel(); ++i)
    TORCH_CHECK_VALUE(
        data[i] >= low && data[i] < high, name, "[", i, "] is ", data[i], ", expected ", low, " <= value < ", high,
        " (", of_what, ")");
}

void check_temperature(double temperature) {
  TORCH_CHECK_VALUE(
      temperature >= 1e-6 && temperature <= 1e6, "temperature is ", temperature, ", expected 1e-6 <= value <= 1e6");
}

void check_expandable(const at::Tensor& tensor, const char* name, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(
      at::is_expandable_to(tensor.sizes(), shape), name, " has shape ", tensor.sizes(),
      ", expected one that expands to ", shape);
}

DType dtype_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble: return DType::kFloat64;
    case at::kBFloat16: return DType::kBFloat16;
    case at::kHalf: return DType::kFloat16;
    default: return DType::kFloat32;
  }
}

at::Tensor as_rows(const at::Tensor& tensor) {
  const int64_t vocabulary = tensor.size(-1);
  at::Tensor rows = tensor.reshape({tensor.numel() / vocabulary, vocabulary});
  return vocabulary > 1 && rows.stride(1) != 1 ? rows.contiguous() : rows;
}

Rows rows_view(const at::Tensor& rows) {
  static const char nothing = 0;
  const void* data = rows.size(0) == 0 ? &nothing : rows.const_data_ptr();
  return {data, rows.stride(0), dtype_of(rows), rows.size(0)};
}

MutableRows mutable_rows_view(const at::Tensor& rows) {
  return {rows.mutable_data_ptr(), rows.stride(0), dtype_of(rows), rows.size(0)};
}

OptionalTensor flattened(const OptionalTensor& tensor) {
  if (!tensor) return std::nullopt;
  return tensor->reshape({-1}).contiguous();
}

}  // namespace tad
