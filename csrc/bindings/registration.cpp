// The operators: what each one takes and returns, and that the same functions serve every device.
#include "operators.h"

TORCH_LIBRARY(tad_ext, m) {
  m.def(
      "tad_loss(Tensor student_logits, Tensor? teacher_logits, Tensor labels, Tensor steps_to_reveal, int delta, "
      "float ce_weight, float kl_weight, float temperature, Tensor? row_weight, Tensor? student_rows, "
      "Tensor? teacher_rows, Tensor? near_count, Tensor? distant_count, bool with_gradient) "
      "-> (Tensor loss, Tensor ce, Tensor kl, Tensor near_count, Tensor distant_count, Tensor gradient)");
  m.def(
      "tad_loss_gradient(Tensor grad_loss, Tensor student_logits, Tensor? teacher_logits, Tensor labels, "
      "Tensor steps_to_reveal, int delta, float ce_weight, float kl_weight, float temperature, Tensor? row_weight, "
      "Tensor? student_rows, Tensor? teacher_rows, Tensor? near_count, Tensor? distant_count) -> Tensor");
  m.def("scale_gradient(Tensor(a!) gradient, Tensor grad_loss) -> ()");
  m.def(
      "linear_tad_loss(Tensor student_hidden, Tensor? teacher_hidden, Tensor lm_head_weight, Tensor labels, "
      "Tensor steps_to_reveal, int delta, float ce_weight, float kl_weight, float temperature, Tensor? row_weight, "
      "Tensor? teacher_rows, Tensor? near_count, Tensor? distant_count, int chunk_rows, bool hidden_grad, "
      "bool weight_grad) -> (Tensor loss, Tensor ce, Tensor kl, Tensor near_count, Tensor distant_count, "
      "Tensor grad_hidden, Tensor grad_weight)");
  // The hidden states and the weight are arguments only so that double backward is noticed.
  m.def(
      "linear_tad_loss_backward(Tensor grad_loss, Tensor grad_hidden, Tensor grad_weight, Tensor student_hidden, "
      "Tensor lm_head_weight) -> (Tensor, Tensor)");
  m.def(
      "masked_log_softmax(Tensor logits, Tensor? rows, float temperature, ScalarType dtype) "
      "-> (Tensor log_probabilities, Tensor normalizers)");
  m.def(
      "masked_log_softmax_backward(Tensor grad, Tensor logits, Tensor? rows, Tensor normalizers, float temperature) "
      "-> Tensor");
  m.def(
      "token_statistics(Tensor logits, Tensor? rows, float temperature, Tensor? suppress_tokens, "
      "Tensor? query_tokens, Tensor? seeds, Tensor? offsets) -> (Tensor token, Tensor confidence, Tensor log_odds, "
      "Tensor top_token, Tensor second_token, Tensor margin, Tensor gap, Tensor entropy, Tensor logsumexp, "
      "Tensor valid, Tensor query_logits)");
  m.def("truncate_logits(Tensor logits, float temperature, int? top_k, float top_p) -> Tensor");
  m.def(
      "commit_reveal(Tensor(a!) canvas, Tensor(b!) reveal_step, Tensor(c!) forwards, Tensor(d!) blocks, "
      "Tensor(e!) done, Tensor positions, Tensor tokens, Tensor top_tokens, Tensor score, Tensor accept, "
      "int block_length, float block_add_threshold, float decoded_token_threshold, str forced_progress, "
      "int mask_token_id, int[] eos_token_ids) -> Tensor");
  m.def(
      "select_reveal(Tensor(a!) canvas, Tensor(b!) reveal_step, Tensor(c!) forwards, Tensor(d!) blocks, "
      "Tensor(e!) done, Tensor positions, Tensor logits, str rule, float value, float temperature, "
      "Tensor suppress_tokens, Tensor? seeds, Tensor? offsets, int block_length, float block_add_threshold, "
      "float decoded_token_threshold, str forced_progress, int mask_token_id, int[] eos_token_ids) "
      "-> (Tensor token, Tensor confidence, Tensor log_odds, Tensor top_token, Tensor second_token, Tensor margin, "
      "Tensor gap, Tensor entropy, Tensor logsumexp, Tensor valid, Tensor revealed)");
  m.def(
      "eligible_positions(Tensor canvas, Tensor blocks, Tensor(a!) positions, int block_length, int mask_token_id) -> "
      "Tensor");
}

TORCH_LIBRARY_IMPL(tad_ext, CPU, m) {
  tad::implement_operators(m);
}

// Without compiled kernels these say how to get them.
TORCH_LIBRARY_IMPL(tad_ext, CUDA, m) {
  tad::implement_operators(m);
}
