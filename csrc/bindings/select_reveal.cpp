// select_reveal.
#include "backend.h"
#include "checks.h"
#include "registration.h"
#include "reveal_call.h"
#include "statistics_call.h"

namespace tad {

TAD_SCHEMAS(m) {
  m.def(
      "select_reveal(Tensor(a!) canvas, Tensor(b!) reveal_step, Tensor(c!) forwards, Tensor(d!) blocks, "
      "Tensor(e!) done, Tensor positions, Tensor logits, str rule, float value, float temperature, "
      "Tensor suppress_tokens, Tensor? seeds, Tensor? offsets, int block_length, float block_add_threshold, "
      "float decoded_token_threshold, str forced_progress, int mask_token_id, int[] eos_token_ids) "
      "-> (Tensor token, Tensor confidence, Tensor log_odds, Tensor top_token, Tensor second_token, Tensor margin, "
      "Tensor gap, Tensor entropy, Tensor logsumexp, Tensor valid, Tensor revealed)");
}

namespace {

constexpr std::pair<const char*, Rule> kRules[] = {
    {"topk", Rule::kTopK},
    {"confidence", Rule::kConfidence},
    {"factor", Rule::kFactor},
    {"factor-code", Rule::kFactorCode},
    {"margin", Rule::kMargin},
    {"entropy", Rule::kEntropy},
    {"entropy-budget", Rule::kEntropyBudget}};

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
  StatisticsCall statistics(
      logits, positions.sizes(), temperature, suppress_tokens, /*ascending=*/true, seeds, offsets);
  TORCH_CHECK_VALUE(
      !values_may_be_read(suppress_tokens) || suppress_tokens.eq(mask_token_id).any().item<bool>(),
      "suppress_tokens does not name the mask token ", mask_token_id, ": revealing a mask reveals nothing");
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

}  // namespace

TAD_KERNELS(m) {
  m.impl("select_reveal", select_reveal);
}

TAD_DERIVATIVES(m) {
  m.impl("select_reveal", without_derivative());
}

}  // namespace tad
