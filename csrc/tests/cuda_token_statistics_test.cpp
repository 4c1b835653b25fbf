// The CUDA kernels of the token statistics, run on the host: two best tokens, entropy, samples, on rows of one and of
// several slices, against plain float64 loops. Sampled tokens are also those of the CPU kernels.
#include <algorithm>

#include "../common/philox.h"
#include "../cpu/kernels.h"
#include "../cuda/kernels.h"
#include "cuda_kernels_checks.h"

namespace {

using namespace tad;
using namespace tad::checks;

/// Poisoned results of so many entries; `fill` points the arguments at them.
struct Results {
  std::vector<int64_t> token, second_token;
  std::vector<float> confidence, margin, entropy, logsumexp;
  std::vector<uint8_t> valid;

  explicit Results(int64_t n)
      : token(poisoned<int64_t>(n)),
        second_token(poisoned<int64_t>(n)),
        confidence(poisoned<float>(n)),
        margin(poisoned<float>(n)),
        entropy(poisoned<float>(n)),
        logsumexp(poisoned<float>(n)),
        valid(poisoned<uint8_t>(n)) {}

  TokenStatisticsArguments fill(TokenStatisticsArguments a) {
    a.token = token.data();
    a.second_token = second_token.data();
    a.confidence = confidence.data();
    a.margin = margin.data();
    a.entropy = entropy.data();
    a.logsumexp = logsumexp.data();
    a.valid = reinterpret_cast<bool*>(valid.data());
    return a;
  }
  std::vector<unsigned char> bytes() const {
    std::vector<unsigned char> all = valid;
    for (const auto* values : {&token, &second_token}) append(all, *values);
    for (const auto* values : {&confidence, &margin, &entropy, &logsumexp}) append(all, *values);
    return all;
  }
};

/// Entries, the rows they name (none: their own), and tokens that must not be chosen.
struct Problem {
  Matrix logits;
  int64_t entries;
  std::vector<int64_t> rows, suppressed;
  double temperature = 0;
  std::vector<int64_t> seeds = {}, offsets = {};

  TokenStatisticsArguments arguments() const {
    TokenStatisticsArguments a;
    a.logits = logits.view();
    a.vocabulary = logits.columns();
    a.entries = entries;
    a.rows = rows.empty() ? nullptr : rows.data();
    a.temperature = temperature;
    a.suppressed = suppressed.data();
    a.suppressed_count = int64_t(suppressed.size());
    a.seeds = seeds.data();
    a.offsets = offsets.data();
    return a;
  }
  int64_t row(int64_t entry) const { return rows.empty() ? entry : rows[size_t(entry)]; }
  bool allowed(int64_t token) const { return !std::count(suppressed.begin(), suppressed.end(), token); }

  /// The allowed token other than `taken` with the highest score, the lowest of several; -inf and NaN come last.
  template <class Score>
  int64_t best(int64_t taken, const Score& score) const {
    int64_t best = -1;
    double best_score = kNaN;
    for (int64_t token = 0; token < logits.columns(); ++token) {
      if (token == taken || !allowed(token)) continue;
      const double value = score(token), rank = value == value ? value : -kInfinity;
      if (best < 0 || rank > best_score) {
        best = token;
        best_score = rank;
      }
    }
    return best;
  }

  /// logit / T + Gumbel noise of the token, from the numbers that its entry names.
  double noisy(int64_t entry, double logit, int64_t token) const {
    using namespace tad::TAD_ISA;
    const PhiloxWords words =
        philox(uint64_t(seeds[size_t(entry)]), uint64_t(offsets[size_t(entry)]), uint32_t(token / 4));
    return logit / temperature + gumbel(words.word[token % 4]);
  }
};

void run(const Problem& problem, Results& results) {
  const TokenStatisticsArguments a = results.fill(problem.arguments());
  std::vector<unsigned char> workspace = poisoned<unsigned char>(cuda::token_statistics_workspace(a));
  CHECK(cuda::token_statistics(a, workspace.data(), nullptr) == 0);
}

void check_entry(const Problem& problem, int64_t entry, const Results& results) {
  const size_t i = size_t(entry);
  const int64_t row = problem.row(entry);
  double confidence = 0, margin = 0, entropy = kInfinity, logsumexp = -kInfinity;
  bool valid = false;
  int64_t token = 0, second = -1;
  if (row >= 0 && row < problem.logits.view().row_count) {
    const std::vector<double> x = problem.logits.row(row), log_p = log_softmax_of(x);
    token = problem.best(-1, [&](int64_t t) { return x[size_t(t)]; });
    second = problem.best(token, [&](int64_t t) { return x[size_t(t)]; });
    const bool possible = std::any_of(x.begin(), x.end(), [](double value) { return value != -kInfinity; });
    valid = std::none_of(x.begin(), x.end(), [](double value) { return value != value || value == kInfinity; });
    if (!valid) logsumexp = kNaN;
    if (valid && possible) {
      const auto probability = [&](int64_t t) { return t < 0 ? 0 : std::exp(log_p[size_t(t)]); };
      confidence = probability(token);
      margin = probability(token) - probability(second);
      entropy = 0;
      for (double value : log_p)
        if (value > -kInfinity) entropy -= std::exp(value) * value;
      logsumexp = log_sum_exp(x);
    }
    if (problem.temperature > 0 && valid && possible) {
      token = problem.best(-1, [&](int64_t t) { return problem.noisy(entry, x[size_t(t)], t); });
      confidence = std::exp(log_p[size_t(token)]);
    }
    if (problem.temperature > 0 && !valid) token = results.token[i];  // any in range
  }
  CHECK(results.token[i] == token && token >= 0 && token < problem.logits.columns());
  CHECK(results.second_token[i] == second);
  CHECK(results.valid[i] == uint8_t(valid));
  const double error = problem.logits.dtype() == DType::kFloat64 ? 1e-7 : 2e-6;
  CHECK_NEAR(double(results.confidence[i]), confidence, error * confidence + 1e-36);
  CHECK_NEAR(double(results.margin[i]), margin, error);
  CHECK_NEAR(double(results.entropy[i]), entropy, error * (1 + entropy));
  CHECK_NEAR(double(results.logsumexp[i]), logsumexp, error * (1 + std::abs(logsumexp)));
}

void check(const Problem& problem) {
  under_every_schedule([&](bool first) {
    Results results(problem.entries);
    run(problem, results);
    if (first)
      for (int64_t entry = 0; entry < problem.entries; ++entry) check_entry(problem, entry, results);
    return results.bytes();
  });
}

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

void test_sizes_and_dtypes() {
  for (int64_t vocabulary : awkward_sizes()) {
    for (int variant = 0; variant < 4; ++variant) {
      const DType dtype = kDTypes[variant];
      context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype);
      Matrix logits(dtype, 3, vocabulary, variant % 3, variant % 2);
      const std::vector<int64_t> suppressed = {vocabulary / 3, vocabulary - 1};
      check({logits.randomize(1), 4, {2, -1, 0, 3}, vocabulary > 7 ? suppressed : std::vector<int64_t>()});
      if (kThreads) return;
    }
  }
}

/// Equal logits in one group, one warp, one block and one row, both for the best and for the second best token.
void test_ties() {
  constexpr int64_t kColumns = 16500;
  const std::vector<std::vector<int64_t>> ties = {{3, 5, 6},    {8, 100, 101},        {255, 256, 2048}, {9, 5000, 8191},
                                                  {8191, 8192}, {8192, 16383, 16384}, {40, 9000, 16499}};
  const int64_t rows = kThreads ? 2 : int64_t(ties.size());
  for (double second : {-1.0, 3.0}) {  // 3 once more: the second best token ties with the others
    context = "ties, another token at " + std::to_string(int(second));
    Matrix logits(DType::kBFloat16, rows, kThreads ? 200 : kColumns);
    logits.randomize(2, 0.5);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < logits.columns(); ++column)
        if (logits.get(row, column) > 2.5) logits.set(row, column, 2.5);
      for (int64_t token : ties[size_t(row)]) logits.set(row, token, 3);
      if (second == 3) logits.set(row, ties[size_t(row)][0], 4);
    }
    check({logits, rows, {}, {}});
    check({logits, rows, {}, {3, 8, 9, 255, 8191, 8192}});
    if (kThreads) return;
  }
  context = "all logits are equal";
  Matrix flat(DType::kFloat32, 1, 8200);
  flat.set_row(0, std::vector<double>(8200, 1.0));
  check({flat, 1, {}, {}});
  check({flat, 1, {}, {0, 1, 2, 4}});
}

void test_infinite_and_missing_values() {
  context = "infinite and missing values";
  constexpr int64_t kColumns = 8212;  // in each of two slices
  Matrix logits(DType::kFloat32, 7, kColumns);
  logits.randomize(3);
  for (int64_t column = 0; column < kColumns; ++column) {
    logits.set(0, column, -kInfinity);
    if (column != 8200) logits.set(1, column, -kInfinity);
    if (column < 8192) logits.set(2, column, -kInfinity);
    if (column >= 8192) logits.set(3, column, -kInfinity);
  }
  logits.set(4, 17, kNaN);
  logits.set(5, 8211, kNaN);
  logits.set(6, 8, kInfinity);
  check({logits, 7, {}, {0, 1}});
  check({logits, 7, {}, {}, 0.8, {1, 2, 3, 4, 5, 6, 7}, std::vector<int64_t>(7)});
  context = "nothing is allowed";
  Matrix small(DType::kFloat32, 1, 2);
  Results results(1);
  run({small.randomize(4), 1, {}, {0, 1}}, results);
  CHECK(results.token[0] == 0 && results.second_token[0] == -1 && results.valid[0] == 1 && results.confidence[0] == 0);
}

template <class Real>
void run_on_cpu(const KernelsOf<Real>& kernels, const TokenStatisticsArguments& a) {
  std::vector<SliceStatistics> found(size_t(slices_of(a.vocabulary)));
  for (int64_t entry = 0; entry < a.entries; ++entry) {
    if (a.rows[entry] < 0) {
      a.token[entry] = 0;
      continue;
    }
    for (size_t slice = 0; slice < found.size(); ++slice)
      kernels.slice_statistics(a, entry, int64_t(slice), &found[slice]);
    kernels.token_statistics(a, entry, found.data());
  }
}

void test_samples() {
  for (int64_t vocabulary : {7, 515, 8195}) {
    for (DType dtype : kDTypes) {
      context = "samples, V " + std::to_string(vocabulary) + ", " + name_of(dtype);
      Matrix logits(dtype, 4, vocabulary);
      const int64_t step = int64_t(5) << 32;
      const Problem problem{
          logits.randomize(5, 1),
          6,
          {0, 1, 2, 3, -1, 0},
          {0, vocabulary / 2},
          1.5,
          {11, -12, 11, int64_t(13) << 40, 1, 14},
          {step, step | 1, step | 2, step, 0, 2 * step}};
      check(problem);
      Results of_cuda(6);
      run(problem, of_cuda);
      for (const CpuKernels* kernels : runnable_cpu_kernels()) {
        Results of_cpu(6);
        const TokenStatisticsArguments a = of_cpu.fill(problem.arguments());
        if (dtype == DType::kFloat64)
          run_on_cpu(kernels->float64, a);
        else
          run_on_cpu(kernels->float32, a);
        CHECK(of_cpu.token == of_cuda.token);
      }
      if (kThreads) return;
    }
  }
}

void test_a_row_alone() {
  context = "a row alone";
  Matrix logits(DType::kBFloat16, 3, 8195);
  logits.randomize(6);
  Results together(3);
  run({logits, 3, {}, {}}, together);
  for (int64_t row = 0; row < 3; ++row) {
    Results alone(1);
    run({logits, 1, {row}, {}}, alone);
    CHECK(alone.entropy[0] == together.entropy[size_t(row)] && alone.logsumexp[0] == together.logsumexp[size_t(row)]);
    CHECK(alone.confidence[0] == together.confidence[size_t(row)] && alone.margin[0] == together.margin[size_t(row)]);
  }
}

void test_rows_far_apart() {
  context = "rows far apart";
  Problem problem{Matrix(DType::kBFloat16, DistantRows::kRows, 20), DistantRows::kRows, {}, {}};
  problem.logits.randomize(7);
  DistantRows far(20);
  far.copy_from(problem.logits);
  Results results(problem.entries);
  TokenStatisticsArguments a = results.fill(problem.arguments());
  a.logits = far.view();
  std::vector<unsigned char> workspace = poisoned<unsigned char>(cuda::token_statistics_workspace(a));
  CHECK(cuda::token_statistics(a, workspace.data(), nullptr) == 0);
  for (int64_t entry = 0; entry < problem.entries; ++entry) check_entry(problem, entry, results);
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  test_ties();
  test_samples();
  if (kThreads) return report();
  test_infinite_and_missing_values();
  test_a_row_alone();
  test_rows_far_apart();
  return report();
}
