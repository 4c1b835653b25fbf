// What the tests of the CUDA kernels of the partitioned loss share: the launcher called on a problem, and its results
// checked.
#pragma once

#include "../tad_problem.h"
#include "runs.h"

namespace tad::checks {

/// -2.5 as a kernel reads it.
inline const void* minus_two_and_a_half(DType dtype) {
  static const float number32 = -2.5f;
  static const double number64 = -2.5;
  return dtype == DType::kFloat64 ? static_cast<const void*>(&number64) : &number32;
}

/// The losses alone.
inline std::vector<double> run_losses(const TadLossArguments& a) {
  std::vector<double> losses = poisoned<double>(a.entries);
  CHECK(cuda::tad_loss(a, losses.data(), nullptr, {}, nullptr, nullptr) == 0);
  return losses;
}

/// The losses, and in the same visit the gradient.
inline std::vector<double> run_gradient(
    const TadLossArguments& a, const MutableRows& rows, const void* grad_loss = nullptr) {
  std::vector<double> losses = poisoned<double>(a.entries);
  const SortedEntries sorted(a.student_rows, a.entries);
  const TadGradient gradient{rows, grad_loss};
  CHECK(cuda::tad_loss(a, losses.data(), &gradient, sorted.view(), nullptr, nullptr) == 0);
  return losses;
}

/// The gradient alone.
inline void run_gradient_alone(const TadLossArguments& a, const MutableRows& rows, const void* grad_loss = nullptr) {
  const SortedEntries sorted(a.student_rows, a.entries);
  const TadGradient gradient{rows, grad_loss};
  CHECK(cuda::tad_loss(a, nullptr, &gradient, sorted.view(), nullptr, nullptr) == 0);
}

/// Whether losses that came with a gradient have the bits of losses alone. An entry whose student row is not there has
/// no row of the gradient either, and keeps the poison.
inline bool same_losses(
    const Problem& problem, const std::vector<double>& with_gradient, const std::vector<double>& alone) {
  std::vector<double> expected = alone;
  for (size_t entry = 0; entry < expected.size(); ++entry) {
    const int64_t row = problem.student_row(entry);
    if (row < 0 || row >= problem.student.view().row_count) expected[entry] = poisoned<double>(1)[0];
  }
  return std::memcmp(with_gradient.data(), expected.data(), sizeof(double) * expected.size()) == 0;
}

/// How check_problem() runs: the layout of the gradient's rows, and under what schedules.
struct Run {
  int64_t gap = 0, offset = 0;
  bool has_grad_loss = true, every_schedule = true;
};

/// Everything about a problem: its losses, and the gradient with the same losses.
inline void check_problem(const Problem& problem, const Run& how = {}) {
  const TadLossArguments a = problem.arguments();
  const DType dtype = problem.student.dtype();
  const auto run = [&](bool first) {
    const std::vector<double> losses = run_losses(a);
    Matrix gradient(dtype, a.student.row_count, a.vocabulary, how.gap, how.offset);
    if (first) {
      check_losses(problem, losses);
      CHECK(same_losses(problem, run_gradient(a, gradient.mutable_view()), losses));
      check_gradient(problem, 1, gradient);
    }
    if (how.has_grad_loss || !first) {
      const void* grad_loss = how.has_grad_loss ? minus_two_and_a_half(dtype) : nullptr;
      CHECK(same_losses(problem, run_gradient(a, gradient.mutable_view(), grad_loss), losses));
      if (first) check_gradient(problem, -2.5, gradient);
    }
    std::vector<unsigned char> bytes = gradient.bytes();
    append(bytes, losses);
    return bytes;
  };
  under_schedules(how.every_schedule, run);
}

}  // namespace tad::checks
