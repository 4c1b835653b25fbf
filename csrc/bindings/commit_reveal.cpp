// commit_reveal.
#include "backend.h"
#include "checks.h"
#include "registration.h"
#include "reveal_call.h"

namespace tad {

TAD_SCHEMAS(m) {
  m.def(
      "commit_reveal(Tensor(a!) canvas, Tensor(b!) reveal_step, Tensor(c!) forwards, Tensor(d!) blocks, "
      "Tensor(e!) done, Tensor positions, Tensor tokens, Tensor top_tokens, Tensor score, Tensor accept, "
      "int block_length, float block_add_threshold, float decoded_token_threshold, str forced_progress, "
      "int mask_token_id, int[] eos_token_ids) -> Tensor");
}

namespace {

constexpr std::pair<const char*, ForcedProgress> kForcedProgress[] = {
    {"row", ForcedProgress::kRow}, {"block", ForcedProgress::kBlock}, {"blocks", ForcedProgress::kBlocks}};

/// No row that is still decoded is given the mask token.
void check_tokens(
    const at::Tensor& positions, const at::Tensor& tokens, const char* name, const at::Tensor& done,
    int64_t mask_token_id) {
  if (!values_may_be_read(tokens)) return;
  const at::Tensor position_rows = positions.cpu(), token_rows = tokens.cpu(), done_rows = done.cpu();
  const int64_t* position = position_rows.const_data_ptr<int64_t>();
  const int64_t* token = token_rows.const_data_ptr<int64_t>();
  const bool* row_done = done_rows.const_data_ptr<bool>();
  for (int64_t i = 0; i < tokens.numel(); ++i)
    TORCH_CHECK_VALUE(
        position[i] < 0 || row_done[i / tokens.size(1)] || token[i] != mask_token_id, name, "[", i,
        "] is the mask token ", mask_token_id, ", expected another: revealing a mask reveals nothing");
}

}  // namespace

void check_shape(const at::Tensor& tensor, const char* name, at::ScalarType dtype, at::IntArrayRef shape) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == dtype, name, " has dtype ", tensor.scalar_type(), ", expected ", dtype);
  TORCH_CHECK_VALUE(tensor.sizes() == shape, name, " has shape ", tensor.sizes(), ", expected ", shape);
}

void check_writable(const at::Tensor& tensor, const char* name, at::ScalarType dtype, at::IntArrayRef shape) {
  check_shape(tensor, name, dtype, shape);
  TORCH_CHECK_VALUE(tensor.is_contiguous(), name, " has strides ", tensor.strides(), ", expected it contiguous");
}

RevealCall::RevealCall(
    const at::Tensor& canvas, const at::Tensor& reveal_step, const at::Tensor& forwards, const at::Tensor& blocks,
    const at::Tensor& done, const at::Tensor& given_positions, int64_t block_length, double block_add_threshold,
    double decoded_token_threshold, c10::string_view forced_progress, int64_t mask_token_id,
    at::IntArrayRef eos_token_ids)
    : canvas(canvas), reveal_step(reveal_step), forwards(forwards), blocks(blocks), done(done) {
  TORCH_CHECK_VALUE(canvas.dim() == 2, "canvas has shape ", canvas.sizes(), ", expected (batch, gen_length)");
  TORCH_CHECK_VALUE(
      given_positions.dim() == 2, "positions has shape ", given_positions.sizes(), ", expected (batch, width)");
  const int64_t batch = canvas.size(0), gen_length = canvas.size(1), width = given_positions.size(1);
  TORCH_CHECK_VALUE(
      block_length >= 1 && gen_length >= 1 && gen_length % block_length == 0, "block_length is ", block_length,
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
  check_shape(given_positions, "positions", at::kLong, {batch, width});
  for (const auto& [tensor, name] :
       {std::pair{&reveal_step, "reveal_step"}, std::pair{&forwards, "forwards"}, std::pair{&blocks, "blocks"},
        std::pair{&done, "done"}, std::pair{&given_positions, "positions"}})
    check_same_device(*tensor, name, canvas, "canvas");
  TORCH_CHECK_VALUE(
      int64_t(eos_token_ids.size()) <= kMaxEosTokens, "eos_token_ids has ", eos_token_ids.size(),
      " ids, expected at most ", kMaxEosTokens);
  check_range(given_positions, "positions", -1, gen_length, "columns of the canvas, -1 for padding");
  check_range(blocks, "blocks", 1, gen_length / block_length + 1, "created blocks");

  positions = given_positions.contiguous();
  revealed = at::empty({batch, width}, done.options());
  RevealArguments& a = arguments;
  a.batch = batch;
  a.gen_length = gen_length;
  a.width = width;
  a.block_length = block_length;
  a.block_add_threshold = block_add_threshold;
  a.decoded_token_threshold = decoded_token_threshold;
  a.forced_progress = value_named("forced_progress", forced_progress, kForcedProgress);
  a.mask_token_id = mask_token_id;
  a.eos_count = int64_t(eos_token_ids.size());
  std::copy(eos_token_ids.begin(), eos_token_ids.end(), a.eos_token_ids);
  a.canvas = canvas.mutable_data_ptr<int64_t>();
  a.reveal_step = reveal_step.mutable_data_ptr<int64_t>();
  a.forwards = forwards.mutable_data_ptr<int64_t>();
  a.blocks = blocks.mutable_data_ptr<int64_t>();
  a.done = done.mutable_data_ptr<bool>();
  a.positions = positions.const_data_ptr<int64_t>();
  a.revealed = revealed.mutable_data_ptr<bool>();
}

void RevealCall::choose(
    const at::Tensor& tokens, const at::Tensor& top_tokens, const at::Tensor& score, const at::Tensor& accept) {
  arguments.tokens = tokens.const_data_ptr<int64_t>();
  arguments.top_tokens = top_tokens.const_data_ptr<int64_t>();
  arguments.score = score.const_data_ptr<float>();
  arguments.accept = accept.const_data_ptr<bool>();
}

void RevealCall::written() const {
  for (const at::Tensor& tensor : {canvas, reveal_step, forwards, blocks, done})
    if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

namespace {

at::Tensor commit_reveal(
    const at::Tensor& canvas, const at::Tensor& reveal_step, const at::Tensor& forwards, const at::Tensor& blocks,
    const at::Tensor& done, const at::Tensor& positions, const at::Tensor& tokens, const at::Tensor& top_tokens,
    const at::Tensor& score, const at::Tensor& accept, int64_t block_length, double block_add_threshold,
    double decoded_token_threshold, c10::string_view forced_progress, int64_t mask_token_id,
    at::IntArrayRef eos_token_ids) {
  RevealCall call(
      canvas, reveal_step, forwards, blocks, done, positions, block_length, block_add_threshold,
      decoded_token_threshold, forced_progress, mask_token_id, eos_token_ids);
  for (const auto& [tensor, name, dtype] :
       {std::tuple{&tokens, "tokens", at::kLong}, std::tuple{&top_tokens, "top_tokens", at::kLong},
        std::tuple{&score, "score", at::kFloat}, std::tuple{&accept, "accept", at::kBool}}) {
    check_shape(*tensor, name, dtype, positions.sizes());
    check_same_device(*tensor, name, canvas, "canvas");
  }
  const at::Tensor token_rows = tokens.contiguous(), top_token_rows = top_tokens.contiguous(),
                   score_rows = score.contiguous(), accept_rows = accept.contiguous();
  check_tokens(call.positions, token_rows, "tokens", done, mask_token_id);
  check_tokens(call.positions, top_token_rows, "top_tokens", done, mask_token_id);
  call.choose(token_rows, top_token_rows, score_rows, accept_rows);
  backend_for(canvas)->commit_reveal(call.arguments);
  call.written();
  return call.revealed;
}

}  // namespace

TAD_KERNELS(m) {
  m.impl("commit_reveal", commit_reveal);
}

TAD_DERIVATIVES(m) {
  m.impl("commit_reveal", without_derivative());
}

}  // namespace tad
