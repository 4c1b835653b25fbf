// The operators' functions, the same for every device. Their schemas are in registration.cpp, their meaning is in the
// docstrings of tad_ext/ops.
#pragma once

#include <ATen/ATen.h>
#include <torch/library.h>

#include <optional>
#include <tuple>

namespace tad {

using OptionalTensor = std::optional<at::Tensor>;

/// Ten statistics of every entry, in the order of tad_ext.ops.TokenStatistics, and one tensor more.
using StatisticsResult = std::tuple<
    at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor,
    at::Tensor, at::Tensor>;

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> tad_loss(
    const at::Tensor& student_logits, const OptionalTensor& teacher_logits, const at::Tensor& labels,
    const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight, double temperature,
    const OptionalTensor& row_weight, const OptionalTensor& student_rows, const OptionalTensor& teacher_rows,
    const OptionalTensor& near_count, const OptionalTensor& distant_count, bool with_gradient);

at::Tensor tad_loss_gradient(
    const at::Tensor& grad_loss, const at::Tensor& student_logits, const OptionalTensor& teacher_logits,
    const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight,
    double temperature, const OptionalTensor& row_weight, const OptionalTensor& student_rows,
    const OptionalTensor& teacher_rows, const OptionalTensor& near_count, const OptionalTensor& distant_count);

void scale_gradient(at::Tensor& gradient, const at::Tensor& grad_loss);

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_tad_loss(
    const at::Tensor& student_hidden, const OptionalTensor& teacher_hidden, const at::Tensor& lm_head_weight,
    const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight,
    double temperature, const OptionalTensor& row_weight, const OptionalTensor& teacher_rows,
    const OptionalTensor& near_count, const OptionalTensor& distant_count, int64_t chunk_rows, bool hidden_grad,
    bool weight_grad);

std::tuple<at::Tensor, at::Tensor> linear_tad_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& grad_hidden, const at::Tensor& grad_weight,
    const at::Tensor& student_hidden, const at::Tensor& lm_head_weight);

std::tuple<at::Tensor, at::Tensor> masked_log_softmax(
    const at::Tensor& logits, const OptionalTensor& rows, double temperature, at::ScalarType dtype);

at::Tensor masked_log_softmax_backward(
    const at::Tensor& grad, const at::Tensor& logits, const OptionalTensor& rows, const at::Tensor& normalizers,
    double temperature);

StatisticsResult token_statistics(
    const at::Tensor& logits, const OptionalTensor& rows, double temperature, const OptionalTensor& suppress_tokens,
    const OptionalTensor& query_tokens, const OptionalTensor& seeds, const OptionalTensor& offsets);

at::Tensor truncate_logits(const at::Tensor& logits, double temperature, std::optional<int64_t> top_k, double top_p);

at::Tensor commit_reveal(
    const at::Tensor& canvas, const at::Tensor& reveal_step, const at::Tensor& forwards, const at::Tensor& blocks,
    const at::Tensor& done, const at::Tensor& positions, const at::Tensor& tokens, const at::Tensor& top_tokens,
    const at::Tensor& score, const at::Tensor& accept, int64_t block_length, double block_add_threshold,
    double decoded_token_threshold, c10::string_view forced_progress, int64_t mask_token_id,
    at::IntArrayRef eos_token_ids);

StatisticsResult select_reveal(
    const at::Tensor& canvas, const at::Tensor& reveal_step, const at::Tensor& forwards, const at::Tensor& blocks,
    const at::Tensor& done, const at::Tensor& positions, const at::Tensor& logits, c10::string_view rule, double value,
    double temperature, const at::Tensor& suppress_tokens, const OptionalTensor& seeds, const OptionalTensor& offsets,
    int64_t block_length, double block_add_threshold, double decoded_token_threshold, c10::string_view forced_progress,
    int64_t mask_token_id, at::IntArrayRef eos_token_ids);

at::Tensor eligible_positions(
    const at::Tensor& canvas, const at::Tensor& blocks, const at::Tensor& positions, int64_t block_length,
    int64_t mask_token_id);

/// Registers all of them as a device's kernels.
inline void implement_operators(torch::Library& m) {
  m.impl("tad_loss", tad_loss);
  m.impl("tad_loss_gradient", tad_loss_gradient);
  m.impl("scale_gradient", scale_gradient);
  m.impl("linear_tad_loss", linear_tad_loss);
  m.impl("linear_tad_loss_backward", linear_tad_loss_backward);
  m.impl("masked_log_softmax", masked_log_softmax);
  m.impl("masked_log_softmax_backward", masked_log_softmax_backward);
  m.impl("token_statistics", token_statistics);
  m.impl("truncate_logits", truncate_logits);
  m.impl("commit_reveal", commit_reveal);
  m.impl("select_reveal", select_reveal);
  m.impl("eligible_positions", eligible_positions);
}

}  // namespace tad
