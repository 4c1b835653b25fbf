// token_statistics on the CPU.
#include <torch/library.h>

#include "../cpu/kernels.h"
#include "checks.h"
#include "parallel.h"

namespace tad {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

using Statistics =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Logits of the queried ids, (entries, K); zero for padding entries.
at::Tensor query_logits(
    const at::Tensor& logits, const OptionalTensor& rows, const OptionalTensor& queries, at::IntArrayRef shape) {
  std::vector<int64_t> result_shape = shape.vec();
  if (queries) {
    check_int64(*queries, "query_tokens");
    TORCH_CHECK_VALUE(queries->dim() >= 1, "query_tokens has shape [], expected (..., K)");
  }
  result_shape.push_back(queries ? queries->size(-1) : 0);
  at::Tensor result = at::zeros(result_shape, logits.options());
  if (queries) check_expandable(*queries, "query_tokens", result_shape);
  if (!queries || result.numel() == 0 || logits.size(0) == 0) return result;
  check_range(*queries, "query_tokens", 0, logits.size(1), "the vocabulary");
  const at::Tensor ids = queries->expand(result_shape).reshape({-1, result_shape.back()});
  const at::Tensor source = rows ? *rows : at::arange(ids.size(0), ids.options());
  const at::Tensor found = at::index(logits, {source.clamp_min(0).unsqueeze(1), ids});
  return found.masked_fill(source.lt(0).unsqueeze(1), 0).reshape(result_shape);
}

Statistics token_statistics(
    const at::Tensor& all_logits, const OptionalTensor& chosen, double temperature,
    const OptionalTensor& suppress_tokens, const OptionalTensor& query_tokens, const OptionalTensor& seeds,
    const OptionalTensor& offsets) {
  check_logits(all_logits, "logits");
  TORCH_CHECK_VALUE(
      temperature >= 0 && std::isfinite(temperature), "temperature is ", temperature,
      ", expected a finite number >= 0");
  const at::Tensor logits = as_rows(all_logits);
  if (chosen) {
    check_int64(*chosen, "rows");
    check_range(*chosen, "rows", -1, logits.size(0), "rows of logits, -1 for padding");
  }
  const std::vector<int64_t> shape =
      chosen ? chosen->sizes().vec() : all_logits.sizes().slice(0, all_logits.dim() - 1).vec();
  const OptionalTensor rows = flattened(chosen);
  const auto ints = logits.options().dtype(at::kLong), floats = logits.options().dtype(at::kFloat);
  at::Tensor token = at::empty(shape, ints), second_token = at::empty(shape, ints);
  at::Tensor confidence = at::empty(shape, floats), margin = at::empty(shape, floats);
  at::Tensor entropy = at::empty(shape, floats), logsumexp = at::empty(shape, floats);
  at::Tensor valid = at::empty(shape, logits.options().dtype(at::kBool));

  at::Tensor suppressed, seed_of, offset_of;
  TokenStatisticsArguments a;
  a.logits = rows_view(logits);
  a.vocabulary = logits.size(1);
  a.rows = pointer_or_null<int64_t>(rows);
  a.temperature = temperature;
  if (suppress_tokens) {
    check_int64(*suppress_tokens, "suppress_tokens");
    check_range(*suppress_tokens, "suppress_tokens", 0, a.vocabulary, "the vocabulary");
    suppressed = std::get<0>(at::_unique2(suppress_tokens->reshape({-1})));
    TORCH_CHECK_VALUE(
        suppressed.numel() < a.vocabulary, "suppress_tokens names all ", a.vocabulary,
        " tokens of the vocabulary, expected to leave one to choose");
    a.suppressed = suppressed.const_data_ptr<int64_t>();
    a.suppressed_count = suppressed.numel();
  }
  if (temperature > 0) {
    TORCH_CHECK_VALUE(seeds && offsets, "seeds and offsets are expected because temperature is ", temperature);
    check_int64(*seeds, "seeds");
    check_int64(*offsets, "offsets");
    check_expandable(*seeds, "seeds", shape);
    check_expandable(*offsets, "offsets", shape);
    seed_of = seeds->expand(shape).contiguous();
    offset_of = offsets->expand(shape).contiguous();
    a.seeds = seed_of.const_data_ptr<int64_t>();
    a.offsets = offset_of.const_data_ptr<int64_t>();
  }
  a.token = token.mutable_data_ptr<int64_t>();
  a.confidence = confidence.mutable_data_ptr<float>();
  a.second_token = second_token.mutable_data_ptr<int64_t>();
  a.margin = margin.mutable_data_ptr<float>();
  a.entropy = entropy.mutable_data_ptr<float>();
  a.logsumexp = logsumexp.mutable_data_ptr<float>();
  a.valid = valid.mutable_data_ptr<bool>();
  const auto entry_kernel = logits.scalar_type() == at::kDouble ? cpu_kernels().float64.token_statistics
                                                                : cpu_kernels().float32.token_statistics;
  parallel_rows(token.numel(), [&](int64_t entry) { entry_kernel(a, entry); });
  return {token,   confidence, second_token, margin,
          entropy, logsumexp,  valid,        query_logits(logits, rows, query_tokens, shape)};
}

}  // namespace

TORCH_LIBRARY_IMPL(tad_ext, CPU, m) {
  m.impl("token_statistics", token_statistics);
}

}  // namespace tad
