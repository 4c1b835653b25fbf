// What the operators that take statistics of logits have in common: checks, results, and the kernels' arguments.
#pragma once

#include "operators.h"

#include "../common/arguments.h"

namespace tad {

/// The arguments, all but which entry names which row, and the tensors they point to.
struct StatisticsCall {
  at::Tensor logits;                                                              // (rows, vocabulary)
  at::Tensor token, confidence, second_token, margin, entropy, logsumexp, valid;  // results, in the shape asked for
  at::Tensor suppressed, seeds, offsets;
  TokenStatisticsArguments arguments;

  /// `ascending`: the suppressed ids are, and need not be sorted.
  StatisticsCall(
      const at::Tensor& logits, at::IntArrayRef shape, double temperature, const OptionalTensor& suppress_tokens,
      bool ascending, const OptionalTensor& seeds, const OptionalTensor& offsets);
};

}  // namespace tad
