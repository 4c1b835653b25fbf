// The CUDA kernel that merges statistics, chooses by them and reveals, run on the host: beside the statistics' own
// kernels, and the same choice and reveals by one thread. What the rules say is tested in
// python_tests/ops/test_select_reveal.py.
#include "../../common/reveal.h"
#include "../../common/select.h"
#include "../token_statistics_problem.h"
#include "runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr int64_t kMask = 0;

/// Canvases in the middle of decoding, an entry for every column, and what one forward does to them.
struct Decoding {
  int64_t batch, gen_length, block_length;
  std::vector<int64_t> canvas, reveal_step, forwards, blocks, positions;
  std::vector<uint8_t> done, accept, revealed;
  std::vector<float> score;
  Results statistics;

  Decoding(unsigned seed, int64_t batch, int64_t gen_length, int64_t block_length)
      : batch(batch), gen_length(gen_length), block_length(block_length), statistics(batch * gen_length) {
    std::mt19937 random(seed);
    for (int64_t i = 0; i < batch * gen_length; ++i) {
      canvas.push_back(random() % 3 ? kMask : 4);
      reveal_step.push_back(0);
      positions.push_back(random() % 6 ? i % gen_length : -1);
    }
    for (int64_t row = 0; row < batch; ++row) {
      forwards.push_back(3);
      blocks.push_back(gen_length / block_length - row % (gen_length / block_length));
      done.push_back(row == 3);
    }
    accept = revealed = poisoned<uint8_t>(batch * gen_length);
    score = poisoned<float>(batch * gen_length);
  }

  SelectionArguments selection(Rule rule, double value) {
    SelectionArguments a;
    a.rule = rule;
    a.value = value;
    a.width = gen_length;
    a.positions = positions.data();
    a.confidence = statistics.confidence.data();
    a.log_odds = statistics.log_odds.data();
    a.margin = statistics.margin.data();
    a.gap = statistics.gap.data();
    a.entropy = statistics.entropy.data();
    a.valid = reinterpret_cast<const bool*>(statistics.valid.data());
    a.score = score.data();
    a.accept = reinterpret_cast<bool*>(accept.data());
    return a;
  }
  RevealArguments reveal() {
    RevealArguments a;
    a.batch = batch;
    a.gen_length = a.width = gen_length;
    a.block_length = block_length;
    a.block_add_threshold = 0.5;
    a.mask_token_id = kMask;
    a.canvas = canvas.data();
    a.reveal_step = reveal_step.data();
    a.forwards = forwards.data();
    a.blocks = blocks.data();
    a.done = reinterpret_cast<bool*>(done.data());
    a.positions = positions.data();
    a.tokens = statistics.token.data();
    a.top_tokens = statistics.top_token.data();
    a.score = score.data();
    a.accept = reinterpret_cast<const bool*>(accept.data());
    a.revealed = reinterpret_cast<bool*>(revealed.data());
    return a;
  }
  std::vector<unsigned char> bytes() const {
    std::vector<unsigned char> all = statistics.bytes();
    for (const auto* flags : {&done, &accept, &revealed}) append(all, *flags);
    for (const auto* values : {&canvas, &reveal_step, &forwards, &blocks}) append(all, *values);
    append(all, score);
    return all;
  }
};

void check_step(Rule rule, double value, const Decoding& start, const Matrix& logits) {
  Problem problem{logits, start.batch * start.gen_length, {}, {kMask}};
  const auto arguments = [&](Decoding& decoding) {
    TokenStatisticsArguments a = decoding.statistics.fill(problem.arguments());
    a.positions = decoding.positions.data();
    return a;
  };
  Decoding expected = start;
  {
    const TokenStatisticsArguments a = arguments(expected);
    std::vector<unsigned char> workspace = poisoned<unsigned char>(cuda::token_statistics_workspace(a));
    CHECK(cuda::token_statistics(a, workspace.data(), nullptr) == 0);
    for (int64_t row = 0; row < start.batch; ++row)
      tad::TAD_ISA::select_row(tad::TAD_ISA::OneThread(), expected.selection(rule, value), row);
    for (int64_t row = 0; row < start.batch; ++row)
      tad::TAD_ISA::reveal_row(tad::TAD_ISA::OneThread(), expected.reveal(), row);
  }
  under_every_schedule([&](bool) {
    Decoding actual = start;
    const TokenStatisticsArguments a = arguments(actual);
    std::vector<unsigned char> workspace = poisoned<unsigned char>(cuda::token_statistics_workspace(a));
    CHECK(cuda::select_reveal(a, actual.selection(rule, value), actual.reveal(), workspace.data(), nullptr) == 0);
    CHECK(actual.bytes() == expected.bytes());
    return actual.bytes();
  });
}

void check_rule(DType dtype, Rule rule, double value, const Decoding& start, int64_t vocabulary) {
  context = "rule " + std::to_string(int(rule)) + ", " + name_of(dtype) + ", V " + std::to_string(vocabulary);
  Matrix logits(dtype, start.batch * start.gen_length, vocabulary);
  logits.randomize(unsigned(7 + int(rule)), 3);
  logits.set(1, 2, kNaN);
  for (int64_t column = 0; column < vocabulary; ++column) logits.set(2, column, -kInfinity);
  check_step(rule, value, start, logits);
}

void test_every_rule() {
  constexpr std::pair<Rule, double> kRules[] = {
      {Rule::kTopK, 3},     {Rule::kConfidence, 0.2}, {Rule::kFactor, 1.5},     {Rule::kFactorCode, 1.5},
      {Rule::kMargin, 0.1}, {Rule::kEntropy, 2.5},    {Rule::kEntropyBudget, 4}};
  for (const auto& [rule, value] : kRules)
    for (DType dtype : {DType::kFloat32, DType::kFloat64})
      if (!kThreads) check_rule(dtype, rule, value, Decoding(unsigned(rule), 4, 6, 3), 33);
  // More entries than warps, more than one slice.
  check_rule(DType::kBFloat16, Rule::kEntropyBudget, 4, Decoding(1, 1, 40, 10), kThreads ? 33 : 8200);
  // More than shared memory has room for.
  if (!kThreads) check_rule(DType::kFloat32, Rule::kTopK, 3, Decoding(2, 1, 150, 25), 9);
}

}  // namespace

int main() {
  test_every_rule();
  return report();
}
