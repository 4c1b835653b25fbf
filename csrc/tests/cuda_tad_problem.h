// What the tests of the partitioned loss share: a problem, its float64 formulas, and the launchers called on it.
#pragma once

#include <algorithm>
#include <numeric>

#include "../cuda/kernels.h"
#include "cuda_kernels_checks.h"

namespace tad::checks {

enum class Kind { silent, near, distant, invalid };

/// The entries of a call and the logits they read.
struct Problem {
  Matrix student, teacher;
  std::vector<int64_t> labels, steps, student_rows, teacher_rows;
  std::vector<double> weights;
  double ce_weight = 1.5, kl_weight = 0.75, temperature = 1.3, near_count = 3, distant_count = 5;

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
    a.near_denominator = &near_count;
    a.distant_denominator = &distant_count;
    a.delta = 4;
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
    if (steps[entry] > 4) return inside(teacher_row(entry), teacher) ? Kind::distant : Kind::invalid;
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
    const double near = weight * ce_weight / near_count, distant = weight * kl_weight * temperature / distant_count;
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
};

/// What the launchers wrote.
struct Losses {
  std::vector<double> losses;
  std::vector<float> sums32;
  std::vector<double> sums64;

  void* sums() { return sums32.empty() ? static_cast<void*>(sums64.data()) : sums32.data(); }
  double sum(size_t i) const { return sums32.empty() ? sums64[i] : double(sums32[i]); }
  std::vector<unsigned char> bytes() const {
    std::vector<unsigned char> all;
    append(all, losses);
    append(all, sums32);
    append(all, sums64);
    return all;
  }
};

inline Losses run_loss(const TadLossArguments& a) {
  Losses out{poisoned<double>(a.entries), {}, {}};
  if (a.student.dtype == DType::kFloat64)
    out.sums64 = poisoned<double>(4 * a.entries);
  else
    out.sums32 = poisoned<float>(4 * a.entries);
  CHECK(cuda::tad_loss(a, out.losses.data(), out.sums(), nullptr) == 0);
  return out;
}

inline void run_gradient(
    const TadLossArguments& a, Losses& forward, const void* grad_loss, const MutableRows& gradient) {
  std::vector<int64_t> entries(size_t(a.entries)), sorted;
  std::iota(entries.begin(), entries.end(), 0);
  if (a.student_rows)
    std::stable_sort(
        entries.begin(), entries.end(), [&](int64_t i, int64_t j) { return a.student_rows[i] < a.student_rows[j]; });
  for (int64_t entry : entries) sorted.push_back(a.student_rows ? a.student_rows[entry] : entry);
  const cuda::EntriesByRow named{sorted.data(), entries.data()};
  const cuda::EntriesByRow by_row = a.student_rows ? named : cuda::EntriesByRow{};
  CHECK(cuda::tad_gradient(a, forward.sums(), grad_loss, by_row, gradient, nullptr) == 0);
}

inline void check_losses(const Problem& problem, const Losses& out) {
  const double error = arithmetic_error(problem.student.dtype());
  for (size_t entry = 0; entry < out.losses.size(); ++entry) {
    const double expected = problem.loss(entry);
    CHECK_NEAR(out.losses[entry], expected, error * (1 + std::abs(expected)));
    const Kind kind = problem.kind(entry);
    const double temperature = kind == Kind::distant ? problem.temperature : 1;
    for (size_t side = 0; side < 2; ++side) {  // a side's maximum and inverse sum are its log sum exp
      const double max = out.sum(4 * entry + 2 * side), inverse_sum = out.sum(4 * entry + 2 * side + 1);
      if (kind == Kind::invalid) {
        CHECK(max != max && inverse_sum != inverse_sum);
      } else if (kind == Kind::silent || (kind == Kind::near && side == 1)) {
        CHECK(max == 0 && inverse_sum == 0);
      } else if (std::isfinite(expected)) {
        const Matrix& logits = side == 0 ? problem.student : problem.teacher;
        const std::vector<double> x = logits.row(side == 0 ? problem.student_row(entry) : problem.teacher_row(entry));
        const double log_sum = log_sum_exp(x, temperature);
        CHECK_NEAR(max / temperature - std::log(inverse_sum), log_sum, error * (1 + std::abs(log_sum)));
      }
    }
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

/// Everything about a problem, under every schedule.
inline void check_problem(const Problem& problem, int64_t gap = 0, int64_t offset = 0) {
  const TadLossArguments a = problem.arguments();
  const DType dtype = problem.student.dtype();
  under_every_schedule([&] {
    Losses forward = run_loss(a);
    check_losses(problem, forward);
    Matrix gradient(dtype, a.student.row_count, a.vocabulary, gap, offset);
    const float outer32 = -2.5f;
    const double outer64 = -2.5;
    const bool is_double = dtype == DType::kFloat64;
    run_gradient(a, forward, is_double ? static_cast<const void*>(&outer64) : &outer32, gradient.mutable_view());
    check_gradient(problem, -2.5, gradient);
    std::vector<unsigned char> bytes = forward.bytes();
    append(bytes, gradient.bytes());
    return bytes;
  });
}

}  // namespace tad::checks
