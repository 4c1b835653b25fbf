// select_reveal, and eligible_positions.
#include "backend.h"
#include "checks.h"
#include "operators.h"
#include "reveal_call.h"
#include "statistics_call.h"

namespace tad {
namespace {

constexpr std::pair<const char*, Rule> kRules[] = {
    {"topk", Rule::kTopK},
    {"confidence", Rule::kConfidence},
    {"factor", Rule::kFactor},
    {"factor-code", Rule::kFactorCode},
    {"margin", Rule::kMargin},
    {"entropy", Rule::kEntropy},
    {"entropy-budget", Rule::kEntropyBudget}};

}  // namespace

StatisticsResult select_reveal(
    const at::Tensor& canvas, const at::Tensor& reveal_step, const at::Tensor& forwards, const at::Tensor& blocks,
    const at::Tensor& done, const at::Tensor& positions, const at::Tensor& logits, c10::string_view rule, double value,
    double temperature, const at::Tensor& suppress_tokens, const OptionalTensor& seeds, const OptionalTensor& offsets,
    int64_t block_length, double block_add_threshold, double decoded_token_threshold, c10::string_view forced_progress,
    int64_t mask_token_id, at::IntArrayRef eos_token_ids) {
  check_logits(logits, "logits");
  SelectionArguments selection;
  selection.rule = value_named("rule", rule, kRules);
  TORCH_CHECK_VALUE(!std::isnan(value), "value is nan, expected the parameter of rule ", rule);
  RevealCall reveal(
      canvas, reveal_step, forwards, blocks, done, positions, block_length, block_add_threshold,
      decoded_token_threshold, forced_progress, mask_token_id, eos_token_ids);
  check_same_device(logits, "logits", canvas, "canvas");
  TORCH_CHECK_VALUE(
      logits.numel() / logits.size(-1) == positions.numel(), "logits has shape ", logits.sizes(),
      ", expected a row for each of the ", positions.numel(), " positions");
  TORCH_CHECK_VALUE(
      !values_may_be_read(suppress_tokens) || suppress_tokens.eq(mask_token_id).any().item<bool>(),
      "suppress_tokens does not name the mask token ", mask_token_id, ": revealing a mask reveals nothing");
  StatisticsCall statistics(
      logits, positions.sizes(), temperature, suppress_tokens, /*ascending=*/true, seeds, offsets);
  const at::Tensor score = at::empty_like(statistics.confidence), accept = at::empty_like(statistics.valid);
  statistics.arguments.positions = reveal.arguments.positions;
  selection.value = value;
  selection.width = positions.size(1);
  selection.positions = reveal.arguments.positions;
  selection.confidence = statistics.arguments.confidence;
  selection.log_odds = statistics.arguments.log_odds;
  selection.margin = statistics.arguments.margin;
  selection.gap = statistics.arguments.gap;
  selection.entropy = statistics.arguments.entropy;
  selection.valid = statistics.arguments.valid;
  selection.score = score.mutable_data_ptr<float>();
  selection.accept = accept.mutable_data_ptr<bool>();
  reveal.choose(statistics.token, statistics.top_token, score, accept);
  backend_for(canvas)->select_reveal(statistics.arguments, selection, reveal.arguments);
  reveal.written();
  return statistics.with(reveal.revealed);
}

at::Tensor eligible_positions(
    const at::Tensor& canvas, const at::Tensor& blocks, const at::Tensor& positions, int64_t block_length,
    int64_t mask_token_id) {
  TORCH_CHECK_VALUE(canvas.dim() == 2, "canvas has shape ", canvas.sizes(), ", expected (batch, gen_length)");
  const int64_t batch = canvas.size(0), gen_length = canvas.size(1);
  TORCH_CHECK_VALUE(
      block_length >= 1 && gen_length >= 1 && gen_length % block_length == 0, "block_length is ", block_length,
      ", expected a divisor of the generation length ", gen_length);
  check_writable(canvas, "canvas", at::kLong, {batch, gen_length});
  check_writable(positions, "positions", at::kLong, {batch, gen_length});
  check_shape(blocks, "blocks", at::kLong, {batch});
  check_same_device(blocks, "blocks", canvas, "canvas");
  check_same_device(positions, "positions", canvas, "canvas");
  const at::Tensor created = blocks.contiguous(), progress = at::empty({batch, 3}, canvas.options());
  EligiblePositionsArguments a;
  a.batch = batch;
  a.gen_length = gen_length;
  a.block_length = block_length;
  a.mask_token_id = mask_token_id;
  a.canvas = canvas.const_data_ptr<int64_t>();
  a.blocks = created.const_data_ptr<int64_t>();
  a.positions = positions.mutable_data_ptr<int64_t>();
  a.progress = progress.mutable_data_ptr<int64_t>();
  backend_for(canvas)->eligible_positions(a);
  if (!positions.is_inference()) positions.unsafeGetTensorImpl()->bump_version();
  return progress;
}

}  // namespace tad
