// What the operators that write canvases have in common: checks, and the kernels' arguments.
#pragma once

#include "../common/arguments.h"
#include "checks.h"

namespace tad {

/// The arguments, all but the choice among the entries, and the tensors they point to.
struct RevealCall {
  at::Tensor canvas, reveal_step, forwards, blocks, done, positions;
  at::Tensor revealed;  // the result
  RevealArguments arguments;

  RevealCall(
      const at::Tensor& canvas, const at::Tensor& reveal_step, const at::Tensor& forwards, const at::Tensor& blocks,
      const at::Tensor& done, const at::Tensor& positions, int64_t block_length, double block_add_threshold,
      double decoded_token_threshold, c10::string_view forced_progress, int64_t mask_token_id,
      at::IntArrayRef eos_token_ids);

  /// Points the arguments to the choice.
  void choose(
      const at::Tensor& tokens, const at::Tensor& top_tokens, const at::Tensor& score, const at::Tensor& accept);

  /// What autograd saved of the tensors that were written is no longer what they hold, and must be noticed.
  void written() const;
};

/// What a word stands for among some; `name` is the argument's. Throws ValueError for any other word.
template <class Value, size_t kCount>
Value value_named(const char* name, c10::string_view word, const std::pair<const char*, Value> (&values)[kCount]) {
  std::string known;
  for (const auto& [each, value] : values) {
    if (word == each) return value;
    known += (known.empty() ? "" : ", ") + std::string(each);
  }
  TORCH_CHECK_VALUE(false, name, " is '", word, "', expected one of ", known);
}

void check_shape(const at::Tensor& tensor, const char* name, at::ScalarType dtype, at::IntArrayRef shape);
void check_writable(const at::Tensor& tensor, const char* name, at::ScalarType dtype, at::IntArrayRef shape);

}  // namespace tad
