// The CUDA kernels of log softmax and its gradient, run on the host, against float64 formulas.
#include "../log_softmax_problem.h"
#include "paths.h"
#include "runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

template <class Real>
std::vector<Real> run_forward(const LogSoftmaxArguments& a, const MutableRows& out) {
  std::vector<Real> normalizers = poisoned<Real>(2 * a.entries);
  CHECK(cuda::log_softmax(a, out, normalizers.data(), nullptr) == 0);
  return normalizers;
}

void run_gradient(
    const LogSoftmaxArguments& a, const void* normalizers, const Rows& grad_out, const MutableRows& gradient) {
  const SortedEntries sorted(a.rows, a.entries);
  CHECK(cuda::log_softmax_gradient(a, normalizers, grad_out, sorted.view(), gradient, nullptr) == 0);
}

template <class Real>
void check_problem(const Problem& problem, DType out_dtype, int64_t gap, int64_t offset, bool every_schedule) {
  const LogSoftmaxArguments a = problem.arguments();
  const auto run = [&](bool first) {
    Matrix out(out_dtype, a.entries, a.vocabulary, gap, offset);
    const std::vector<Real> normalizers = run_forward<Real>(a, out.mutable_view());
    if (first) check_forward(problem, out, normalizers);
    Matrix gradient(problem.logits.dtype(), a.logits.row_count, a.vocabulary, offset, gap);
    run_gradient(a, normalizers.data(), problem.grad_out.view(), gradient.mutable_view());
    if (first) check_gradient(problem, gradient);
    std::vector<unsigned char> bytes = out.bytes();
    append(bytes, normalizers);
    append(bytes, gradient.bytes());
    return bytes;
  };
  under_schedules(every_schedule, run);
}

void check(const Problem& problem, DType out_dtype, int64_t gap = 0, int64_t offset = 0, bool every_schedule = true) {
  if (problem.logits.dtype() == DType::kFloat64)
    check_problem<double>(problem, out_dtype, gap, offset, every_schedule);
  else
    check_problem<float>(problem, out_dtype, gap, offset, every_schedule);
}

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

/// Row 1 is named three times, rows 2 and 4 are not named.
void test_sizes_and_dtypes() {
  for (int64_t vocabulary : awkward_sizes()) {
    for (int variant = 0; variant < (vocabulary < 1000 ? 8 : 4); ++variant) {
      const DType dtype = kDTypes[variant % 4], other = kDTypes[variant / 2 % 4];
      context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype) + " to " + name_of(other);
      const std::vector<int64_t> rows = {1, 3, 1, 0, 1};
      Matrix logits(dtype, 5, vocabulary, variant % 3, variant % 2), grad_out(other, 5, vocabulary, variant % 2);
      check(
          {logits.randomize(1), grad_out.randomize(2, 1), variant % 4 < 3 ? rows : std::vector<int64_t>(),
           variant % 3 ? 0.7 : 1.0},
          other, variant % 3, variant % 2);
      if (kThreads) return;
    }
  }
}

/// On every path: the same dtypes, and a result's gradient of another dtype, which is never kept.
void test_paths() {
  for (const Path& path : kPaths) {
    if (is_left_out(path)) continue;
    for (int variant = 0; variant < 8; ++variant) {
      const DType dtype = kDTypes[variant % 4], other = kDTypes[variant < 4 ? variant : (variant + 1) % 4];
      const int64_t vocabulary = variant == 1 ? 5003 : variant % 2 ? 523 : 640;
      context = std::string(name_of(dtype)) + " to " + name_of(other);
      Matrix logits(dtype, 3, vocabulary, variant % 3), grad_out(other, 3, vocabulary);
      const Problem problem{logits.randomize(10), grad_out.randomize(11, 1), {2, 0, 2}, 0.7};
      const OnPath on_path(path, vocabulary, portable::element_size(other));
      check(problem, other, variant % 2, variant / 4, /*every_schedule=*/variant == 0);
      on_path.check_launch(3, {.can_be_kept = dtype == other, .whole = vocabulary == 640, .asks_ahead = true});
      if (kThreads) break;
    }
  }
}

void test_rows_out_of_range() {
  context = "rows out of range";
  Matrix logits(DType::kFloat32, 3, 9), grad_out(DType::kFloat32, 4, 9);
  check({logits.randomize(3), grad_out.randomize(4), {-1, 3, 2, 0}}, DType::kBFloat16, 2);
}

void test_infinite_and_missing_values() {
  context = "infinite and missing values";
  Matrix logits(DType::kFloat32, 6, 20), grad_out(DType::kFloat32, 6, 20);
  logits.randomize(5);
  grad_out.randomize(6);
  for (int64_t column = 0; column < 20; ++column) {
    logits.set(0, column, -kInfinity);
    if (column > 11) logits.set(1, column, -kInfinity);
    if (column < 9) logits.set(2, column, -kInfinity);
    logits.set(5, column, column % 2 ? 1e30 : -1e30);
  }
  logits.set(3, 17, kNaN);
  logits.set(4, 8, kInfinity);
  check({logits, grad_out, {}}, DType::kFloat32);
}

void test_a_row_alone(const Path& path) {
  context = "a row alone";
  const OnPath on_path(path, 515, 2);
  Matrix logits(DType::kBFloat16, 4, 515), together(DType::kBFloat16, 4, 515), alone(DType::kBFloat16, 1, 515);
  run_forward<float>({logits.randomize(7).view(), 515, 4, nullptr, 0.7}, together.mutable_view());
  for (int64_t row = 0; row < 4; ++row) {
    run_forward<float>({logits.view(), 515, 1, &row, 0.7}, alone.mutable_view());
    CHECK(alone.row(0) == together.row(row));
  }
}

void test_rows_far_apart() {
  context = "rows far apart";
  constexpr int64_t kRows = DistantRows::kRows;
  Matrix logits(DType::kBFloat16, kRows, 20), grad_out(DType::kBFloat16, kRows, 20),
      result(DType::kBFloat16, kRows, 20);
  DistantRows far_logits(20), far_grad_out(20), far_result(20);
  far_logits.copy_from(logits.randomize(8));
  far_grad_out.copy_from(grad_out.randomize(9));
  const Problem problem{logits, grad_out, {}};
  LogSoftmaxArguments a = problem.arguments();
  a.logits = far_logits.view();
  const std::vector<float> normalizers = run_forward<float>(a, far_result.mutable_view());
  far_result.copy_to(result);
  check_forward(problem, result, normalizers);
  run_gradient(a, normalizers.data(), far_grad_out.view(), far_result.mutable_view());
  far_result.copy_to(result);
  check_gradient(problem, result);
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  test_paths();
  if (kThreads) return report();
  test_rows_out_of_range();
  test_infinite_and_missing_values();
  for (const Path& path : kPaths) test_a_row_alone(path);
  test_rows_far_apart();
  return report();
}
