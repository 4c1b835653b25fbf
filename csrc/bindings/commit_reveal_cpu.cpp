// commit_reveal on the CPU.
#include <torch/library.h>

#include "../common/reveal.h"
#include "checks.h"

namespace tad {
namespace {

void check_shape(const at::Tensor& tensor, const char* name, at::ScalarType dtype, at::IntArrayRef shape) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, name, " has dtype ", tensor.scalar_type(), ", expected ", dtype);
  TORCH_CHECK_VALUE(tensor.sizes() == shape, name, " has shape ", tensor.sizes(), ", expected ", shape);
}

void check_writable(const at::Tensor& tensor, const char* name, at::ScalarType dtype, at::IntArrayRef shape) {
  check_shape(tensor, name, dtype, shape);
  TORCH_CHECK_VALUE(tensor.is_contiguous(), name, " has strides ", tensor.strides(), ", expected it contiguous");
}

at::Tensor commit_reveal(
    const at::Tensor& canvas, const at::Tensor& reveal_step, const at::Tensor& forwards, const at::Tensor& blocks,
    const at::Tensor& done, const at::Tensor& positions, const at::Tensor& tokens, const at::Tensor& score,
    const at::Tensor& accept, int64_t block_length, double block_add_threshold, double decoded_token_threshold,
    int64_t mask_token_id, at::IntArrayRef eos_token_ids) {
  TORCH_CHECK_VALUE(canvas.dim() == 2, "canvas has shape ", canvas.sizes(), ", expected (batch, gen_length)");
  TORCH_CHECK_VALUE(positions.dim() == 2, "positions has shape ", positions.sizes(), ", expected (batch, width)");
  const int64_t batch = canvas.size(0), gen_length = canvas.size(1), width = positions.size(1);
  TORCH_CHECK_VALUE(
      block_length >= 1 && gen_length % block_length == 0, "block_length is ", block_length,
      ", expected a divisor of the generation length ", gen_length);
  for (const auto& [value, name] :
       {std::pair{block_add_threshold, "block_add_threshold"},
        std::pair{decoded_token_threshold, "decoded_token_threshold"}})
    TORCH_CHECK_VALUE(value >= 0 && value <= 1, name, " is ", value, ", expected 0 <= value <= 1");
  check_writable(canvas, "canvas", at::kLong, {batch, gen_length});
  check_writable(reveal_step, "reveal_step", at::kLong, {batch, gen_length});
  check_writable(forwards, "forwards", at::kLong, {batch});
  check_writable(blocks, "blocks", at::kLong, {batch});
  check_writable(done, "done", at::kBool, {batch});
  check_shape(positions, "positions", at::kLong, {batch, width});
  check_shape(tokens, "tokens", at::kLong, {batch, width});
  check_shape(score, "score", at::kFloat, {batch, width});
  check_shape(accept, "accept", at::kBool, {batch, width});
  check_range(positions, "positions", -1, gen_length, "columns of the canvas, -1 for padding");
  check_range(blocks, "blocks", 1, gen_length / block_length + 1, "created blocks");

  const at::Tensor position_rows = positions.contiguous(), token_rows = tokens.contiguous();
  const at::Tensor score_rows = score.contiguous(), accept_rows = accept.contiguous();
  at::Tensor revealed = at::empty({batch, width}, accept.options());
  RevealArguments a;
  a.gen_length = gen_length;
  a.width = width;
  a.block_length = block_length;
  a.block_add_threshold = block_add_threshold;
  a.decoded_token_threshold = decoded_token_threshold;
  a.mask_token_id = mask_token_id;
  a.eos_token_ids = eos_token_ids.data();
  a.eos_count = int64_t(eos_token_ids.size());
  a.canvas = canvas.mutable_data_ptr<int64_t>();
  a.reveal_step = reveal_step.mutable_data_ptr<int64_t>();
  a.forwards = forwards.mutable_data_ptr<int64_t>();
  a.blocks = blocks.mutable_data_ptr<int64_t>();
  a.done = done.mutable_data_ptr<bool>();
  a.positions = position_rows.const_data_ptr<int64_t>();
  a.tokens = token_rows.const_data_ptr<int64_t>();
  a.score = score_rows.const_data_ptr<float>();
  a.accept = accept_rows.const_data_ptr<bool>();
  a.revealed = revealed.mutable_data_ptr<bool>();
  for (int64_t i = 0; i < position_rows.numel(); ++i)
    TORCH_CHECK_VALUE(
        a.positions[i] < 0 || a.done[i / width] || a.tokens[i] != mask_token_id, "tokens[", i, "] is the mask token ",
        mask_token_id, ", expected another: revealing a mask reveals nothing");
  for (int64_t row = 0; row < batch; ++row) TAD_ISA::reveal_row(a, row);
  // What autograd saved of these tensors is no longer what they hold, and must be noticed.
  for (const at::Tensor& written : {canvas, reveal_step, forwards, blocks, done})
    if (!written.is_inference()) written.unsafeGetTensorImpl()->bump_version();
  return revealed;
}

}  // namespace

TORCH_LIBRARY_IMPL(tad_ext, CPU, m) {
  m.impl("commit_reveal", commit_reveal);
}

}  // namespace tad
