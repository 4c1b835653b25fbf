// What the tests of truncate_logits share: a problem, and what float64 and a sort say of its rows.
#pragma once

#include <algorithm>

#include "matrix.h"

namespace tad::checks {

struct Problem {
  Matrix logits;
  int64_t top_k;
  double top_p, temperature = 1;

  TruncationArguments arguments(const MutableRows& out) const {
    return {logits.view(), out, logits.columns(), temperature, top_k, top_p};
  }
};

/// Settings that matter for so many columns: one criterion, the other, both, neither.
struct Setting {
  int64_t top_k;
  double top_p;
};
inline std::vector<Setting> settings_for(int64_t vocabulary) {
  const int64_t all = vocabulary, some = (vocabulary + 2) / 3;
  return {{all, 0.9}, {all, 0.3}, {all, 0.999}, {some, 0.8}, {some, 1}, {1, 1}, {all, 1e-9}, {all + 5, 1}};
}

/// Numbers from `surely` on stay, those below `perhaps` do not: in between, rounding decides.
struct Least {
  double surely, perhaps;
};

inline Least least_of(const std::vector<double>& x, const Problem& problem) {
  std::vector<double> ordered = x;
  std::sort(ordered.begin(), ordered.end(), [](double a, double b) { return b != b ? false : a != a || a > b; });
  if (problem.top_k < int64_t(x.size())) {
    const double last = ordered[size_t(problem.top_k - 1)];
    if (last != last) return {last, last};
    while (ordered.back() < last) ordered.pop_back();
  }
  Least least{ordered.back(), ordered.back()};
  if (problem.top_p == 1 || !std::isfinite(ordered[0])) return least;
  constexpr double kRounding = 1e-6;
  double total = 0, sum = 0, above = 0;
  for (double value : ordered) total += std::exp((value - ordered[0]) / problem.temperature);
  for (size_t i = 0; i < ordered.size(); ++i) {
    if (i > 0 && ordered[i] < ordered[i - 1]) above = sum;
    if (above < (problem.top_p - kRounding) * total || above == 0) least.surely = ordered[i];
    if (above < (problem.top_p + kRounding) * total) least.perhaps = ordered[i];
    sum += std::exp((ordered[i] - ordered[0]) / problem.temperature);
  }
  return least;
}

inline void check_truncated(const Problem& problem, const Matrix& out) {
  for (int64_t row = 0; row < out.view().row_count; ++row) {
    const std::vector<double> x = problem.logits.row(row);
    const Least least = least_of(x, problem);
    double lowest_kept = kInfinity, highest_gone = -kInfinity;
    for (int64_t column = 0; column < out.columns(); ++column) {
      const double before = x[size_t(column)], after = out.get(row, column);
      if (before == -kInfinity) {
        CHECK(after == before);
        continue;
      }
      const bool gone = after == -kInfinity;
      if (!gone) CHECK_NEAR(after, before, 0);
      CHECK(gone ? before < least.surely : !(before < least.perhaps));
      if (gone)
        highest_gone = std::max(highest_gone, before);
      else if (before == before)
        lowest_kept = std::min(lowest_kept, before);
    }
    CHECK(highest_gone < lowest_kept || highest_gone == -kInfinity);
  }
  CHECK(out.gaps_are_untouched());
}

/// Rows whose result is known without any arithmetic: a bound, and what lies on either side of it.
inline Matrix rows_with_infinite_and_missing_values(DType dtype, int64_t columns) {
  Matrix logits(dtype, 8, columns);
  logits.randomize(5);
  for (int64_t column = 0; column < columns; ++column) {
    logits.set(0, column, -kInfinity);
    if (column > columns / 2) logits.set(1, column, -kInfinity);
    if (column < columns - 2) logits.set(2, column, -kInfinity);
    logits.set(5, column, 2);                                // all alike
    logits.set(6, column, column % 3 ? 0.0 : -0.0);          // which is the same
    logits.set(7, column, column % 2 ? 60000.0 : -60000.0);  // far apart
  }
  logits.set(3, columns / 3, kNaN);
  logits.set(4, columns / 4, kInfinity);
  return logits;
}

/// Probabilities 0.4, 0.3, 0.2, 0.1 in some order, at a temperature: how many stay.
struct ByHand {
  int64_t top_k;
  double top_p, temperature;
  int64_t kept;
};
constexpr ByHand kByHand[] = {{1, 1, 1, 1},     {3, 1, 1, 3},     {4, 0.39, 1, 1},    {4, 0.41, 1, 2},
                              {4, 0.71, 1, 3},  {4, 0.91, 1, 4},  {4, 1e-9, 1, 1},    {2, 0.5, 1, 1},
                              {2, 0.6, 1, 2},   {4, 0.5, 0.5, 1}, {4, 0.8, 0.5, 2},   {4, 0.85, 0.5, 3},
                              {4, 0.2, 1e3, 1}, {4, 0.3, 1e3, 2}, {4, 0.99, 1e-30, 1}};

/// As above, among columns that are impossible; run(problem, out).
template <class Run>
void check_by_hand(DType dtype, const Run& run) {
  for (const ByHand& hand : kByHand) {
    context = "by hand, top_k " + std::to_string(hand.top_k) + ", top_p " + std::to_string(hand.top_p);
    Matrix logits(dtype, 1, 70), out(dtype, 1, 70);
    for (int64_t column = 0; column < 70; ++column) logits.set(0, column, -kInfinity);
    const int64_t columns[] = {61, 3, 30, 8};
    for (int i = 0; i < 4; ++i) logits.set(0, columns[i], std::log(0.4 - 0.1 * i));
    run(Problem{logits, hand.top_k, hand.top_p, hand.temperature}, out);
    for (int i = 0; i < 4; ++i) CHECK((out.get(0, columns[i]) == logits.get(0, columns[i])) == (i < hand.kept));
  }
}

/// Numbers of a dtype that lie next to each other, of both signs: every one of them can be the least that stays.
template <class Run>
void check_neighbours(DType dtype, const Run& run) {
  const int digits = dtype == DType::kBFloat16 ? 7 : dtype == DType::kFloat16 ? 10 : dtype == DType::kFloat32 ? 23 : 52;
  constexpr int kSide = 10;
  Matrix logits(dtype, 1, 2 * kSide), out(dtype, 1, 2 * kSide);
  for (int i = 0; i < kSide; ++i) {
    logits.set(0, (3 * i) % kSide, -1 - std::ldexp(i, -digits));
    logits.set(0, kSide + (7 * i) % kSide, 1 + std::ldexp(i, -digits));
  }
  for (int64_t top_k = 1; top_k <= 2 * kSide; ++top_k) {
    context = std::string("neighbours, ") + name_of(dtype) + ", top_k " + std::to_string(top_k);
    run(Problem{logits, top_k, 1}, out);
    int64_t kept = 0;
    for (int64_t column = 0; column < 2 * kSide; ++column) kept += out.get(0, column) > -kInfinity;
    CHECK(kept == top_k);
    check_truncated({logits, top_k, 1}, out);
  }
}

}  // namespace tad::checks
