// What the tests of the partitioned loss share: a problem and its float64 formulas.
#pragma once

#include <algorithm>

#include "matrix.h"

namespace tad::checks {

enum class Kind { silent, near, distant, invalid };

/// The entries of a call and the logits they read.
struct Problem {
  static constexpr int64_t kDelta = 4;

  Matrix student, teacher;
  std::vector<int64_t> labels, steps, student_rows, teacher_rows;
  std::vector<double> weights;
  double ce_weight = 1.5, kl_weight = 0.75, temperature = 1.3;
  double near_given = 3, distant_given = 5;  // denominators
  bool own_counts = false;                   // instead of these

  int64_t near_count() const {
    return count([](int64_t steps) { return steps > 0 && steps <= kDelta; });
  }
  int64_t distant_count() const {
    return count([](int64_t steps) { return steps > kDelta; });
  }
  double near_denominator() const { return denominator(near_given, near_count()); }
  double distant_denominator() const { return denominator(distant_given, distant_count()); }

  TadLossArguments arguments() const {
    TadLossArguments a;
    a.student = student.view();
    a.teacher = teacher.view();
    a.vocabulary = student.columns();
    a.entries = int64_t(steps.size());
    a.labels = labels.data();
    a.steps = steps.data();
    a.row_weight = weights.empty() ? nullptr : weights.data();
    a.student_rows = student_rows.empty() ? nullptr : student_rows.data();
    a.teacher_rows = teacher_rows.empty() ? nullptr : teacher_rows.data();
    a.near_denominator = own_counts ? nullptr : &near_given;
    a.distant_denominator = own_counts ? nullptr : &distant_given;
    counts_[0] = near_count();
    counts_[1] = distant_count();
    a.near_count = &counts_[0];
    a.distant_count = &counts_[1];
    a.delta = kDelta;
    a.ce_weight = ce_weight;
    a.kl_weight = kl_weight;
    a.temperature = temperature;
    return a;
  }

  int64_t student_row(size_t entry) const { return student_rows.empty() ? int64_t(entry) : student_rows[entry]; }
  int64_t teacher_row(size_t entry) const { return teacher_rows.empty() ? int64_t(entry) : teacher_rows[entry]; }

  Kind kind(size_t entry) const {
    const auto inside = [](int64_t row, const Matrix& matrix) { return row >= 0 && row < matrix.view().row_count; };
    if (!inside(student_row(entry), student)) return Kind::invalid;
    if (steps[entry] <= 0) return Kind::silent;
    if (steps[entry] > kDelta) return inside(teacher_row(entry), teacher) ? Kind::distant : Kind::invalid;
    return labels[entry] >= 0 && labels[entry] < student.columns() ? Kind::near : Kind::invalid;
  }

  double loss(size_t entry) const {
    if (kind(entry) == Kind::invalid) return kNaN;
    if (kind(entry) == Kind::silent) return 0;
    const std::vector<double> s = student.row(student_row(entry));
    if (kind(entry) == Kind::near) return -log_softmax_of(s)[size_t(labels[entry])];
    const std::vector<double> log_q = log_softmax_of(s, temperature);
    const std::vector<double> log_p = log_softmax_of(teacher.row(teacher_row(entry)), temperature);
    double kl = 0;
    for (size_t i = 0; i < log_p.size(); ++i)
      if (log_p[i] != -kInfinity) kl += std::exp(log_p[i]) * (log_p[i] - log_q[i]);
    return kl;
  }

  /// Adds an entry's gradient at one row to `sum`, and the size of what was subtracted for it to `magnitude`.
  void add_gradient(size_t entry, double outer, std::vector<double>& sum, std::vector<double>& magnitude) const {
    const double weight = outer * (weights.empty() ? 1 : weights[entry]);
    const double near = weight * ce_weight / near_denominator();
    const double distant = weight * kl_weight * temperature / distant_denominator();
    const Kind of_entry = kind(entry);
    const bool is_distant = of_entry == Kind::distant;
    const std::vector<double> log_q = log_softmax_of(student.row(student_row(entry)), is_distant ? temperature : 1);
    std::vector<double> log_p(log_q.size(), -kInfinity);
    if (is_distant) log_p = log_softmax_of(teacher.row(teacher_row(entry)), temperature);
    if (of_entry == Kind::near) log_p[size_t(labels[entry])] = 0;
    const double scale = is_distant ? distant : of_entry == Kind::near ? near : 0;
    for (size_t i = 0; i < sum.size(); ++i) {
      if (of_entry == Kind::invalid) sum[i] = kNaN;
      if (scale == 0) continue;
      sum[i] += scale * (std::exp(log_q[i]) - std::exp(log_p[i]));
      magnitude[i] += std::abs(scale) * (std::exp(log_q[i]) + std::exp(log_p[i]));
    }
  }

  mutable int64_t counts_[2] = {};  // what the last arguments() point to

 private:
  template <class Counted>
  int64_t count(const Counted& counted) const {
    return int64_t(std::count_if(steps.begin(), steps.end(), counted));
  }
  double denominator(double given, int64_t own) const {
    const double value = own_counts ? double(own) : given;
    return value == 0 ? 1 : value;
  }
};

inline void check_losses(const Problem& problem, const std::vector<double>& losses) {
  const double error = arithmetic_error(problem.student.dtype());
  for (size_t entry = 0; entry < losses.size(); ++entry) {
    const double expected = problem.loss(entry);
    CHECK_NEAR(losses[entry], expected, error * (1 + std::abs(expected)));
  }
}

inline void check_gradient(const Problem& problem, double outer, const Matrix& gradient) {
  const DType dtype = gradient.dtype();
  for (int64_t row = 0; row < gradient.view().row_count; ++row) {
    std::vector<double> sum(size_t(gradient.columns())), magnitude(sum.size());
    int named = 0;
    for (size_t entry = 0; entry < problem.steps.size(); ++entry) {
      if (problem.student_row(entry) != row) continue;
      problem.add_gradient(entry, outer, sum, magnitude);
      ++named;
    }
    const double error = stored_error(dtype) * std::max(named, 1);  // rounded after every entry
    for (size_t i = 0; i < sum.size(); ++i)
      CHECK_NEAR(gradient.get(row, int64_t(i)), sum[i], error * magnitude[i] + subnormal_error(dtype));
  }
  CHECK(gradient.gaps_are_untouched());
}

}  // namespace tad::checks
