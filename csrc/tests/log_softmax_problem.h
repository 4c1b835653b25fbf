// What the tests of log softmax share: a problem and its float64 formulas.
#pragma once

#include <algorithm>

#include "matrix.h"

namespace tad::checks {

/// Chosen rows of logits; an empty list is every row. The upstream gradient has a row per entry.
struct Problem {
  Matrix logits, grad_out;
  std::vector<int64_t> rows;
  double temperature = 1;

  LogSoftmaxArguments arguments() const {
    return {
        logits.view(), logits.columns(), grad_out.view().row_count, rows.empty() ? nullptr : rows.data(), temperature};
  }
  int64_t row(int64_t entry) const { return rows.empty() ? entry : rows[size_t(entry)]; }
  bool exists(int64_t entry) const { return row(entry) >= 0 && row(entry) < logits.view().row_count; }
};

template <class Real>
void check_forward(const Problem& problem, const Matrix& out, const std::vector<Real>& normalizers) {
  const double arithmetic = arithmetic_error(problem.logits.dtype());
  for (int64_t entry = 0; entry < out.view().row_count; ++entry) {
    const bool exists = problem.exists(entry);
    std::vector<double> expected(size_t(out.columns()), kNaN);
    double log_sum = kNaN;
    if (exists) {
      const std::vector<double> x = problem.logits.row(problem.row(entry));
      expected = log_softmax_of(x, problem.temperature);
      log_sum = log_sum_exp(x, problem.temperature);
    }
    const double* e = expected.data();
    for (int64_t column = 0; column < out.columns(); ++column, ++e)
      CHECK_NEAR(out.get(entry, column), *e, arithmetic + stored_error(out.dtype()) * std::abs(*e));
    const double rounded = double(normalizers[size_t(2 * entry)]), rest = double(normalizers[size_t(2 * entry + 1)]);
    if (exists && std::isfinite(log_sum))
      CHECK_NEAR(rounded / problem.temperature + rest, log_sum, arithmetic * (1 + std::abs(log_sum)) / 10);
    else
      CHECK(!std::isfinite(rounded) && !std::isfinite(rest));
  }
  CHECK(out.gaps_are_untouched());
}

inline void check_gradient(const Problem& problem, const Matrix& gradient) {
  const DType dtype = gradient.dtype();
  const int64_t entries = problem.grad_out.view().row_count;
  for (int64_t row = 0; row < gradient.view().row_count; ++row) {
    std::vector<double> sum(size_t(gradient.columns())), magnitude(sum.size());
    int named = 0;
    for (int64_t entry = 0; entry < entries; ++entry) {
      if (problem.row(entry) != row) continue;
      ++named;
      const std::vector<double> log_p = log_softmax_of(problem.logits.row(row), problem.temperature);
      const std::vector<double> g = problem.grad_out.row(entry);
      double total = 0, total_magnitude = 0;
      for (double value : g) total += value, total_magnitude += std::abs(value);
      for (size_t i = 0; i < g.size(); ++i) {
        sum[i] += (g[i] - std::exp(log_p[i]) * total) / problem.temperature;
        magnitude[i] += (std::abs(g[i]) + std::exp(log_p[i]) * total_magnitude) / problem.temperature;
      }
    }
    const double error = stored_error(dtype) * std::max(named, 1);  // rounded after every entry
    for (size_t i = 0; i < sum.size(); ++i)
      CHECK_NEAR(gradient.get(row, int64_t(i)), sum[i], error * magnitude[i] + subnormal_error(dtype));
  }
  CHECK(gradient.gaps_are_untouched());
}

}  // namespace tad::checks
