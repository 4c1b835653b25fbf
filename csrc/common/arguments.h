// What a kernel is told: plain structs of pointers and numbers, shared by the CPU backend and the CUDA launchers.
#pragma once

#include <cstdint>

namespace tad {

enum class DType : int32_t { kFloat32, kFloat64, kBFloat16, kFloat16 };

/// Columns, and a little behind them, are numbered by an int; a grid has 65,535 slices of 16,384 of them.
constexpr int64_t kMaxVocabulary = 65'535 * int64_t(16'384);

/// Rows of `vocabulary` contiguous elements, `row_stride` elements apart.
struct Rows {
  const void* data = nullptr;
  int64_t row_stride = 0;
  DType dtype = DType::kFloat32;
  int64_t row_count = 0;
};

struct MutableRows {
  void* data = nullptr;
  int64_t row_stride = 0;
  DType dtype = DType::kFloat32;
  int64_t row_count = 0;
};

/// The partitioned loss over a list of entries. Entry i reads logits row student_rows[i] (i where null), teacher row
/// teacher_rows[i] likewise, and is near (1 <= steps <= delta), distant (steps > delta) or silent (steps <= 0).
struct TadLossArguments {
  Rows student;
  Rows teacher;  // data null: there is none, and distant entries contribute nothing
  int64_t vocabulary = 0;
  int64_t entries = 0;
  const int64_t* labels = nullptr;
  const int64_t* steps = nullptr;
  const double* row_weight = nullptr;  // null: 1
  const int64_t* student_rows = nullptr;
  const int64_t* teacher_rows = nullptr;
  const double* near_denominator = nullptr;  // null: the number of near entries
  const double* distant_denominator = nullptr;
  const int64_t* near_count = nullptr;  // the number of near entries; only the gradient asks
  const int64_t* distant_count = nullptr;
  int64_t delta = 0;
  double ce_weight = 1.0;
  double kl_weight = 1.0;
  double temperature = 1.0;
};

/// grad_loss * d loss / d student logits, into every row. `rows` may be the student's logits themselves where each
/// entry has its own row. A null `grad_loss` is 1; otherwise a float64 for float64 logits, a float32 for others.
struct TadGradient {
  MutableRows rows;
  const void* grad_loss = nullptr;
};

/// Where the results of a whole call go, one number each; loss, ce and kl in float64 for float64 logits, otherwise in
/// float32. A null `loss` asks for the counts alone.
struct TadTotals {
  void* loss = nullptr;
  void* ce = nullptr;
  void* kl = nullptr;
  int64_t* near_count = nullptr;
  int64_t* distant_count = nullptr;

  TadTotals counts() const { return {nullptr, nullptr, nullptr, near_count, distant_count}; }
};

struct TokenStatisticsArguments {
  Rows logits;
  int64_t vocabulary = 0;
  int64_t entries = 0;
  const int64_t* rows = nullptr;        // null: entry i is row i; a negative entry is padding
  const int64_t* positions = nullptr;   // null: as `rows` says; of an entry that is padding negative
  double temperature = 0.0;             // 0: the most probable token
  const int64_t* suppressed = nullptr;  // sorted ascending
  int64_t suppressed_count = 0;
  const int64_t* seeds = nullptr;    // one per entry, where temperature > 0
  const int64_t* offsets = nullptr;  // step << 32 | position, one per entry
  int64_t* token = nullptr;
  float* confidence = nullptr;
  float* log_odds = nullptr;
  int64_t* top_token = nullptr;
  int64_t* second_token = nullptr;
  float* margin = nullptr;
  float* gap = nullptr;
  float* entropy = nullptr;
  float* logsumexp = nullptr;
  bool* valid = nullptr;
};

struct LogSoftmaxArguments {
  Rows logits;
  int64_t vocabulary = 0;
  int64_t entries = 0;
  const int64_t* rows = nullptr;  // null: entry i is row i
  double temperature = 1.0;
};

/// Rows of which the most probable tokens stay, in `out`; the rule is in the docstring of tad_ext.ops.truncate_logits.
struct TruncationArguments {
  Rows logits;
  MutableRows out;  // of the same dtype
  int64_t vocabulary = 0;
  double temperature = 1.0;  // from 1e-30 to 1e30
  int64_t top_k = 0;         // at least the vocabulary: all of them
  double top_p = 1.0;
};

/// By what entries are accepted; the rules are in the docstring of tad_ext.ops.Selection.
enum class Rule { kTopK, kConfidence, kFactor, kFactorCode, kMargin, kEntropy, kEntropyBudget };

/// The choice among the entries of each canvas, whose statistics are (batch, width).
struct SelectionArguments {
  Rule rule = Rule::kTopK;
  double value = 1;
  int64_t width = 0;
  const int64_t* positions = nullptr;  // negative: padding
  const float* confidence = nullptr;
  const float* log_odds = nullptr;
  const float* margin = nullptr;
  const float* gap = nullptr;
  const float* entropy = nullptr;
  const bool* valid = nullptr;
  float* score = nullptr;
  bool* accept = nullptr;
};

/// A kernel cannot read the host's memory, so the ids travel inside the arguments.
constexpr int64_t kMaxEosTokens = 16;

/// What is revealed where nothing is accepted; the rules are in the docstring of tad_ext.commit_reveal.
enum class ForcedProgress { kRow, kBlock, kBlocks };

/// One decoding step of a batch of canvases (batch, gen_length); `positions`, `tokens`, `top_tokens`,
/// `score`, `accept` and `revealed` are (batch, width). No row lists a position twice.
struct RevealArguments {
  int64_t batch = 0;
  int64_t gen_length = 0;
  int64_t width = 0;
  int64_t block_length = 0;
  double block_add_threshold = 1.0;
  double decoded_token_threshold = 1.0;
  ForcedProgress forced_progress = ForcedProgress::kRow;
  int64_t mask_token_id = 0;
  int64_t eos_token_ids[kMaxEosTokens] = {};
  int64_t eos_count = 0;
  int64_t* canvas = nullptr;
  int64_t* reveal_step = nullptr;
  int64_t* forwards = nullptr;
  int64_t* blocks = nullptr;
  bool* done = nullptr;
  const int64_t* positions = nullptr;
  const int64_t* tokens = nullptr;
  const int64_t* top_tokens = nullptr;
  const float* score = nullptr;
  const bool* accept = nullptr;
  bool* revealed = nullptr;
};

/// What the next forward and the host need to know of canvases (batch, gen_length).
struct EligiblePositionsArguments {
  int64_t batch = 0;
  int64_t gen_length = 0;
  int64_t block_length = 0;
  int64_t mask_token_id = 0;
  const int64_t* canvas = nullptr;
  const int64_t* blocks = nullptr;
  int64_t* positions = nullptr;  // (batch, gen_length)
  int64_t* progress = nullptr;   // (batch, 3): the first block with a mask, masks in created blocks, all masks
};

}  // namespace tad
