// Argument checks. Every message names the argument, its value, and what was expected.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "../common/arguments.h"

namespace tad {

using OptionalTensor = std::optional<at::Tensor>;

/// float32, float64, bfloat16 or float16 with at least one dimension and a vocabulary of at least one token.
void check_logits(const at::Tensor& logits, const char* name);

void check_int64(const at::Tensor& tensor, const char* name);

/// `count` elements in any shape.
void check_count(const at::Tensor& tensor, const char* name, int64_t count);

void check_same_device(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name);

/// Whether a check may look at a tensor's values. On the CPU always; on a GPU that would wait for the device, so only
/// where the environment variable TAD_EXT_DEBUG is 1.
bool values_may_be_read(const at::Tensor& tensor);

/// Every element lies in [low, high), as far as values may be read.
void check_range(const at::Tensor& tensor, const char* name, int64_t low, int64_t high, const char* of_what);

/// Within 1e-6 and 1e6, where its square and its inverse are ordinary float32 numbers.
void check_temperature(double temperature);

/// The tensor can be expanded to `shape`.
void check_expandable(const at::Tensor& tensor, const char* name, at::IntArrayRef shape);

DType dtype_of(const at::Tensor& tensor);

/// The tensor as (rows, vocabulary) with contiguous rows; copies only where the layout forces it.
at::Tensor as_rows(const at::Tensor& tensor);

/// Views of `as_rows` tensors for the kernels. `data` of Rows is not null even where there are no rows, because null
/// says that there is no tensor.
Rows rows_view(const at::Tensor& rows);
MutableRows mutable_rows_view(const at::Tensor& rows);

/// Contiguous, flattened; the tensor must outlive the pointer taken from it.
OptionalTensor flattened(const OptionalTensor& tensor);

template <class T>
const T* pointer_or_null(const OptionalTensor& tensor) {
  return tensor ? tensor->const_data_ptr<T>() : nullptr;
}

}  // namespace tad
