// The CUDA kernel of truncate_logits, run on the host, against float64 and a sort.
#include "../truncation_problem.h"
#include "paths.h"
#include "runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

void run_on_device(const Problem& problem, Matrix& out) {
  CHECK(cuda::truncate_logits(problem.arguments(out.mutable_view()), nullptr) == 0);
}

/// With rows of the result `gap` elements apart, and not aligned.
void check(const Problem& problem, int64_t gap = 0, bool every_schedule = false) {
  const std::string outer = context;
  context += ", top_k " + std::to_string(problem.top_k) + ", top_p " + std::to_string(problem.top_p);
  under_schedules(every_schedule, [&](bool first) {
    Matrix out(problem.logits.dtype(), problem.logits.view().row_count, problem.logits.columns(), gap, gap % 2);
    run_on_device(problem, out);
    if (first) check_truncated(problem, out);
    return out.bytes();
  });
  context = outer;
}

/// Every setting at one size and in one column; long rows only twice in all, because a search visits them often.
void test_sizes_and_dtypes() {
  for (int64_t vocabulary : awkward_sizes())
    for (DType dtype : kDTypes) {
      const bool half = dtype == DType::kBFloat16 || dtype == DType::kFloat16;
      if (!kThreads && vocabulary > 1000 && vocabulary != (half ? 16389 : 4099)) continue;
      context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype);
      Matrix logits(dtype, 2, vocabulary, vocabulary % 3, vocabulary % 2);
      logits.randomize(1, dtype == DType::kBFloat16 ? 1 : 6);
      if (kThreads) return check({logits, vocabulary / 3, 0.8}, 1, /*every_schedule=*/true);
      const bool every = vocabulary == 1 || vocabulary == 9 || (vocabulary == 515 && dtype == DType::kFloat32);
      for (const Setting& setting : every ? settings_for(vocabulary) : std::vector<Setting>{{vocabulary / 2, 0.9}})
        check({logits, setting.top_k, setting.top_p, 0.7}, vocabulary % 2 * 3, /*every_schedule=*/vocabulary == 515);
    }
}

/// Rows that several blocks share, keep or read again.
void test_paths() {
  for (const Path& path : kPaths) {
    if (is_left_out(path)) continue;
    for (DType dtype : kDTypes) {
      const int64_t vocabulary = dtype == DType::kFloat16 ? 523 : 640;
      context = name_of(dtype);
      const int64_t rows = path.rows_at_a_time > 0 ? path.rows_at_a_time + 1 : 2;
      Matrix logits(dtype, rows, vocabulary);
      const OnPath on_path(path, vocabulary, portable::element_size(dtype));
      check({logits.randomize(10), 200, 0.8}, 0, /*every_schedule=*/dtype == DType::kBFloat16);
      on_path.check_launch(rows, {.whole = vocabulary == 640});
      if (kThreads) break;
    }
  }
}

void test_infinite_and_missing_values() {
  for (DType dtype : kDTypes) {
    context = std::string("infinite and missing values, ") + name_of(dtype);
    const Matrix logits = rows_with_infinite_and_missing_values(dtype, 75);
    for (const Setting& setting : settings_for(logits.columns()))
      if (setting.top_k != logits.columns() || setting.top_p == 0.9) check({logits, setting.top_k, setting.top_p});
    check({logits, 2, 0.9});
  }
}

void test_by_hand() {
  for (DType dtype : {DType::kFloat32, DType::kFloat64}) check_by_hand(dtype, run_on_device);
  for (DType dtype : kDTypes) check_neighbours(dtype, run_on_device);
}

void test_a_row_alone() {
  context = "a row alone";
  Matrix logits(DType::kFloat32, 4, 515), together(DType::kFloat32, 4, 515), alone(DType::kFloat32, 1, 515);
  run_on_device({logits.randomize(7), 515, 0.8}, together);
  for (int64_t row = 0; row < 4; ++row) {
    Matrix one(DType::kFloat32, 1, 515);
    one.set_row(0, logits.row(row));
    run_on_device({one, 515, 0.8}, alone);
    CHECK(alone.row(0) == together.row(row));
  }
}

void test_rows_far_apart() {
  context = "rows far apart";
  constexpr int64_t kRows = DistantRows::kRows;
  Matrix logits(DType::kBFloat16, kRows, 20), result(DType::kBFloat16, kRows, 20);
  DistantRows far_logits(20), far_result(20);
  far_logits.copy_from(logits.randomize(8));
  const Problem problem{logits, 20, 0.8};
  TruncationArguments a = problem.arguments(far_result.mutable_view());
  a.logits = far_logits.view();
  CHECK(cuda::truncate_logits(a, nullptr) == 0);
  far_result.copy_to(result);
  check_truncated(problem, result);
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  test_paths();
  if (kThreads) return report();
  test_infinite_and_missing_values();
  test_by_hand();
  test_a_row_alone();
  test_rows_far_apart();
  return report();
}
