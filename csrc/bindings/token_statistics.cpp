// token_statistics.
#include "backend.h"
#include "checks.h"
#include "registration.h"
#include "statistics_call.h"

namespace tad {

TAD_SCHEMAS(m) {
  m.def(
      "token_statistics(Tensor logits, Tensor? rows, float temperature, Tensor? suppress_tokens, "
      "Tensor? query_tokens, Tensor? seeds, Tensor? offsets) -> (Tensor token, Tensor confidence, Tensor log_odds, "
      "Tensor top_token, Tensor second_token, Tensor margin, Tensor gap, Tensor entropy, Tensor logsumexp, "
      "Tensor valid, Tensor query_logits)");
}

namespace {

/// Logits of the queried ids, (entries, K); zero for padding entries.
at::Tensor query_logits(
    const at::Tensor& logits, const OptionalTensor& rows, const OptionalTensor& queries, at::IntArrayRef shape) {
  std::vector<int64_t> result_shape = shape.vec();
  if (queries) {
    check_int64(*queries, "query_tokens");
    check_same_device(*queries, "query_tokens", logits, "logits");
    TORCH_CHECK_VALUE(queries->dim() >= 1, "query_tokens has shape [], expected (..., K)");
  }
  result_shape.push_back(queries ? queries->size(-1) : 0);
  at::Tensor result = at::zeros(result_shape, logits.options());
  if (queries) check_expandable(*queries, "query_tokens", result_shape);
  if (!queries || result.numel() == 0 || logits.size(0) == 0) return result;
  check_range(*queries, "query_tokens", 0, logits.size(1), "the vocabulary");
  const at::Tensor ids = queries->expand(result_shape).reshape({-1, result_shape.back()});
  const at::Tensor source = (rows ? *rows : at::arange(ids.size(0), ids.options())).unsqueeze(1);
  const at::Tensor found = at::index(logits, {source.clamp(0, logits.size(0) - 1), ids.clamp(0, logits.size(1) - 1)});
  const at::Tensor no_row = source.lt(0).logical_or_(source.ge(logits.size(0)));
  const at::Tensor no_token = ids.lt(0).logical_or_(ids.ge(logits.size(1)));  // only where values may not be read
  return found.masked_fill(no_token, NAN).masked_fill(no_row, 0).reshape(result_shape);
}

/// The suppressed ids, sorted for the kernels; those that are `ascending` already at no cost.
at::Tensor sorted_ids(const at::Tensor& suppress_tokens, const at::Tensor& logits, bool ascending) {
  check_int64(suppress_tokens, "suppress_tokens");
  check_same_device(suppress_tokens, "suppress_tokens", logits, "logits");
  check_range(suppress_tokens, "suppress_tokens", 0, logits.size(1), "the vocabulary");
  const at::Tensor ids = suppress_tokens.reshape({-1});
  TORCH_CHECK_VALUE(
      !ascending || ids.numel() < 2 || !values_may_be_read(ids) || at::diff(ids).ge(0).all().item<bool>(),
      "suppress_tokens are not in ascending order");
  const at::Tensor sorted = ascending || ids.numel() < 2 ? ids.contiguous() : std::get<0>(at::sort(ids));
  TORCH_CHECK_VALUE(
      ids.numel() < logits.size(1) || !values_may_be_read(ids) ||
          std::get<0>(at::_unique2(ids)).numel() < logits.size(1),
      "suppress_tokens names all ", logits.size(1), " tokens of the vocabulary, expected to leave one to choose");
  return sorted;
}

}  // namespace

StatisticsCall::StatisticsCall(
    const at::Tensor& given_logits, at::IntArrayRef shape, double temperature, const OptionalTensor& suppress_tokens,
    bool ascending, const OptionalTensor& given_seeds, const OptionalTensor& given_offsets)
    : logits(as_rows(given_logits)) {
  TORCH_CHECK_VALUE(
      temperature >= 0 && std::isfinite(temperature), "temperature is ", temperature,
      ", expected a finite number >= 0");
  const auto ints = logits.options().dtype(at::kLong), floats = logits.options().dtype(at::kFloat);
  token = at::empty(shape, ints);
  confidence = at::empty(shape, floats);
  log_odds = at::empty(shape, floats);
  top_token = at::empty(shape, ints);
  second_token = at::empty(shape, ints);
  margin = at::empty(shape, floats);
  gap = at::empty(shape, floats);
  entropy = at::empty(shape, floats);
  logsumexp = at::empty(shape, floats);
  valid = at::empty(shape, logits.options().dtype(at::kBool));

  TokenStatisticsArguments& a = arguments;
  a.logits = rows_view(logits);
  a.vocabulary = logits.size(1);
  a.entries = token.numel();
  a.temperature = temperature;
  if (suppress_tokens) {
    suppressed = sorted_ids(*suppress_tokens, logits, ascending);
    a.suppressed = suppressed.const_data_ptr<int64_t>();
    a.suppressed_count = suppressed.numel();
  }
  for (const auto& [tensor, name] : {std::pair{&given_seeds, "seeds"}, std::pair{&given_offsets, "offsets"}})
    if (*tensor) check_same_device(**tensor, name, given_logits, "logits");
  if (temperature > 0) {
    TORCH_CHECK_VALUE(
        given_seeds && given_offsets, "seeds and offsets are expected because temperature is ", temperature);
    for (const auto& [tensor, name] : {std::pair{&*given_seeds, "seeds"}, std::pair{&*given_offsets, "offsets"}}) {
      check_int64(*tensor, name);
      check_expandable(*tensor, name, shape);
    }
    seeds = given_seeds->expand(shape).contiguous();
    offsets = given_offsets->expand(shape).contiguous();
    a.seeds = seeds.const_data_ptr<int64_t>();
    a.offsets = offsets.const_data_ptr<int64_t>();
  }
  a.token = token.mutable_data_ptr<int64_t>();
  a.confidence = confidence.mutable_data_ptr<float>();
  a.log_odds = log_odds.mutable_data_ptr<float>();
  a.top_token = top_token.mutable_data_ptr<int64_t>();
  a.second_token = second_token.mutable_data_ptr<int64_t>();
  a.margin = margin.mutable_data_ptr<float>();
  a.gap = gap.mutable_data_ptr<float>();
  a.entropy = entropy.mutable_data_ptr<float>();
  a.logsumexp = logsumexp.mutable_data_ptr<float>();
  a.valid = valid.mutable_data_ptr<bool>();
}

namespace {

StatisticsResult token_statistics(
    const at::Tensor& logits, const OptionalTensor& chosen, double temperature, const OptionalTensor& suppress_tokens,
    const OptionalTensor& query_tokens, const OptionalTensor& seeds, const OptionalTensor& offsets) {
  check_logits(logits, "logits");
  if (chosen) {
    check_int64(*chosen, "rows");
    check_same_device(*chosen, "rows", logits, "logits");
    check_range(*chosen, "rows", -1, logits.numel() / logits.size(-1), "rows of logits, -1 for padding");
  }
  const std::vector<int64_t> shape = chosen ? chosen->sizes().vec() : logits.sizes().slice(0, logits.dim() - 1).vec();
  const OptionalTensor rows = flattened(chosen);
  StatisticsCall call(logits, shape, temperature, suppress_tokens, /*ascending=*/false, seeds, offsets);
  call.arguments.rows = pointer_or_null<int64_t>(rows);
  backend_for(logits)->token_statistics(call.arguments);
  return call.with(query_logits(call.logits, rows, query_tokens, shape));
}

}  // namespace

TAD_KERNELS(m) {
  m.impl("token_statistics", token_statistics);
}

TAD_DERIVATIVES(m) {
  m.impl("token_statistics", without_derivative());
}

}  // namespace tad
