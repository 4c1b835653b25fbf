// What the tests of the token statistics share: a problem, its results, and plain float64 loops that say what these
// are.
#pragma once

#include <algorithm>

#include "../common/philox.h"
#include "matrix.h"

namespace tad::checks {

/// Poisoned results of so many entries; `fill` points the arguments at them.
struct Results {
  std::vector<int64_t> token, top_token, second_token;
  std::vector<float> confidence, log_odds, margin, gap, entropy, logsumexp;
  std::vector<uint8_t> valid;

  explicit Results(int64_t n)
      : token(poisoned<int64_t>(n)),
        top_token(poisoned<int64_t>(n)),
        second_token(poisoned<int64_t>(n)),
        confidence(poisoned<float>(n)),
        log_odds(poisoned<float>(n)),
        margin(poisoned<float>(n)),
        gap(poisoned<float>(n)),
        entropy(poisoned<float>(n)),
        logsumexp(poisoned<float>(n)),
        valid(poisoned<uint8_t>(n)) {}

  TokenStatisticsArguments fill(TokenStatisticsArguments a) {
    a.token = token.data();
    a.top_token = top_token.data();
    a.second_token = second_token.data();
    a.confidence = confidence.data();
    a.log_odds = log_odds.data();
    a.margin = margin.data();
    a.gap = gap.data();
    a.entropy = entropy.data();
    a.logsumexp = logsumexp.data();
    a.valid = reinterpret_cast<bool*>(valid.data());
    return a;
  }
  std::vector<unsigned char> bytes() const {
    std::vector<unsigned char> all = valid;
    for (const auto* values : {&token, &top_token, &second_token}) append(all, *values);
    for (const auto* values : {&confidence, &log_odds, &margin, &gap, &entropy, &logsumexp}) append(all, *values);
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

/// Sums over all tokens but one, relative to its logit: of exp(d), and of exp(d) * d.
inline std::pair<double, double> beside(const std::vector<double>& x, int64_t token) {
  double sum = 0, weighted = 0;
  for (int64_t i = 0; i < int64_t(x.size()); ++i) {
    const double d = x[size_t(i)] - x[size_t(token)];
    if (i == token || d == -kInfinity) continue;
    sum += std::exp(d);
    weighted += std::exp(d) * d;
  }
  return {sum, weighted};
}

inline void check_entry(const Problem& problem, int64_t entry, const Results& results) {
  const size_t i = size_t(entry);
  const int64_t row = problem.row(entry);
  double confidence = 0, log_odds = -kInfinity, margin = 0, gap = 0, entropy = kInfinity, logsumexp = -kInfinity;
  bool valid = false;
  int64_t token = 0, top = 0, second = -1;
  if (row >= 0 && row < problem.logits.view().row_count) {
    const std::vector<double> x = problem.logits.row(row), log_p = log_softmax_of(x);
    token = top = problem.best(-1, [&](int64_t t) { return x[size_t(t)]; });
    second = problem.best(token, [&](int64_t t) { return x[size_t(t)]; });
    const bool possible = std::any_of(x.begin(), x.end(), [](double value) { return value != -kInfinity; });
    valid = std::none_of(x.begin(), x.end(), [](double value) { return value != value || value == kInfinity; });
    if (!valid) logsumexp = kNaN;
    if (valid && possible) {
      const auto probability = [&](int64_t t) { return t < 0 ? 0 : std::exp(log_p[size_t(t)]); };
      confidence = probability(token);
      margin = probability(token) - probability(second);
      const double second_logit = second < 0 ? -kInfinity : x[size_t(second)];
      gap = x[size_t(top)] > second_logit ? x[size_t(top)] - second_logit : 0;
      const auto [sum, weighted] = beside(x, std::max_element(x.begin(), x.end()) - x.begin());
      entropy = std::log1p(sum) - weighted / (1 + sum);
      logsumexp = log_sum_exp(x);
    }
    if (problem.temperature > 0 && valid && possible) {
      token = problem.best(-1, [&](int64_t t) { return problem.noisy(entry, x[size_t(t)], t); });
      confidence = std::exp(log_p[size_t(token)]);
    }
    if (valid && possible) log_odds = x[size_t(token)] > -kInfinity ? -std::log(beside(x, token).first) : -kInfinity;
    if (problem.temperature > 0 && !valid) token = results.token[i];  // any in range
  }
  CHECK(results.token[i] == token && token >= 0 && token < problem.logits.columns());
  CHECK(results.top_token[i] == top && results.second_token[i] == second);
  CHECK(results.valid[i] == uint8_t(valid));
  const double error = problem.logits.dtype() == DType::kFloat64 ? 1e-7 : 2e-6;
  CHECK_NEAR(double(results.confidence[i]), confidence, error * confidence + 1e-36);
  CHECK_NEAR(double(results.log_odds[i]), log_odds, 2 * error * (1 + std::abs(log_odds)));
  CHECK_NEAR(double(results.margin[i]), margin, error);
  CHECK_NEAR(double(results.gap[i]), gap, error * (1 + gap));
  CHECK_NEAR(double(results.entropy[i]), entropy, 2 * error * entropy + 1e-36);
  CHECK_NEAR(double(results.logsumexp[i]), logsumexp, error * (1 + std::abs(logsumexp)));
}

}  // namespace tad::checks
