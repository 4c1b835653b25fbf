// What the operators that take statistics of logits have in common: checks, results, and the kernels' arguments.
#pragma once

#include <tuple>

#include "../common/arguments.h"
#include "checks.h"

namespace tad {

/// Ten statistics of every entry, in the order of tad_ext.ops.TokenStatistics, and one tensor more.
using StatisticsResult = std::tuple<
    at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
    at::Tensor, at::Tensor>;

/// The arguments, all but which entry names which row, and the tensors they point to.
struct StatisticsCall {
  at::Tensor logits;  // (rows, vocabulary)
  // Results, in the shape asked for.
  at::Tensor token, confidence, log_odds, top_token, second_token, margin, gap, entropy, logsumexp, valid;
  at::Tensor suppressed, seeds, offsets;
  TokenStatisticsArguments arguments;

  /// `ascending`: the suppressed ids are, and need not be sorted.
  StatisticsCall(
      const at::Tensor& logits, at::IntArrayRef shape, double temperature, const OptionalTensor& suppress_tokens,
      bool ascending, const OptionalTensor& seeds, const OptionalTensor& offsets);

  /// The results, and one more.
  StatisticsResult with(const at::Tensor& more) const {
    return {token, confidence, log_odds, top_token, second_token, margin, gap, entropy, logsumexp, valid, more};
  }
};

}  // namespace tad
