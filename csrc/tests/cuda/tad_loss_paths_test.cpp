// The CUDA kernel of the partitioned loss on every path that a row can take: brought by either loader and kept by
// clusters of 1 to 16 blocks, or read again; by all clusters at once, or by few that go from row to row.
#include "paths.h"
#include "tad_loss_runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr DType kDTypes[] = {DType::kBFloat16, DType::kFloat32, DType::kFloat16, DType::kFloat64};

int64_t column_bytes(const Problem& problem) {
  return portable::element_size(problem.student.dtype()) + portable::element_size(problem.teacher.dtype());
}

/// A near, a distant and a silent entry, each with its own row.
Problem dense_problem(DType dtype, DType teacher_dtype, int64_t vocabulary, int64_t gap = 0, int64_t offset = 0) {
  Matrix student(dtype, 3, vocabulary, gap, offset), teacher(teacher_dtype, 3, vocabulary, offset, gap % 2);
  Problem problem{student.randomize(1), teacher.randomize(2), {vocabulary - 1, 0, 0}, {2, 9, 0}, {}, {}, {}};
  problem.own_counts = true;
  return problem;
}

/// 523 columns are 66 groups: nine for each of eight blocks, but for the last one, whose three end with half a group.
/// 640 are whole groups, in rows on 16-byte boundaries.
void test_dtypes(const Path& path, int64_t vocabulary, bool same_dtype) {
  for (int i = 0; i < 4; ++i) {
    const DType dtype = kDTypes[i], teacher_dtype = same_dtype ? dtype : kDTypes[(i + 1) % 4];
    const bool whole = vocabulary == 640;
    const Problem problem = dense_problem(dtype, teacher_dtype, vocabulary, whole ? 8 * i : i, whole ? 0 : i % 2);
    context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype) + " and " + name_of(teacher_dtype);
    const OnPath on_path(path, vocabulary, column_bytes(problem));
    const int64_t gap = whole && i < 3 ? 8 * i : i;  // one gradient on other boundaries
    check_problem(problem, {.gap = gap, .has_grad_loss = i > 1, .every_schedule = false});
    const bool all_whole = whole && same_dtype && i < 3;
    on_path.check_launch(3, {.can_be_kept = same_dtype, .whole = all_whole, .asks_ahead = true});
  }
}

/// Rows named three times, once and never, on 16-byte boundaries and under every schedule. Two sums of one kind follow
/// each other in rows 1 and 3.
void test_row_lists(const Path& path) {
  constexpr int64_t kColumns = 640;
  context = "row lists";
  Matrix student(DType::kBFloat16, 5, kColumns), teacher(DType::kBFloat16, 4, kColumns);
  const Problem problem{student.randomize(3),      teacher.randomize(4),  {5, 39, 0, 1, 7, 0, 639},
                        {2, 1, 8, 9, 9, 0, 4},     {3, 1, 3, 3, 0, 1, 1}, {-1, -1, 2, 1, 3, -1, -1},
                        {1, 0.5, 3, 0.25, 2, 1, 3}};
  const OnPath on_path(path, kColumns, column_bytes(problem));
  check_problem(problem);
  on_path.check_launch(5, {.whole = true, .asks_ahead = true});
}

/// Every kind of entry after every other one, in rows that one cluster works on one after the other: several batches of
/// groups in each half, the second of which is short, entries that add to a row, and some of weight 0.
void test_one_after_the_other(const Path& path) {
  context = "one after the other";
  constexpr int64_t kColumns = 5000;
  Matrix student(DType::kBFloat16, 16, kColumns), teacher(DType::kBFloat16, 16, kColumns);
  Problem problem{student.randomize(5), teacher.randomize(6), {}, {}, {}, {}, {}};
  for (int kind : {0, 0, 1, 1, 2, 0, 2, 2, 1, 0, 2, 1, 1, 3, 0, 3, 2, 3})
    problem.steps.push_back(kind == 2 ? 0 : kind == 1 ? 9 : 2), problem.labels.push_back(kind == 3 ? -1 : 77);
  for (int64_t entry = 0; entry < 18; ++entry) {
    problem.student_rows.push_back(std::min<int64_t>(entry, 15) / 2 * 2);  // every second row is nobody's
    problem.teacher_rows.push_back(15 - entry % 16);
    problem.weights.push_back(entry % 5 == 1 ? 0 : 0.5);
  }
  for (int64_t entry = 0; entry < 8; ++entry) problem.student_rows[size_t(entry)] = entry;  // but for these
  const OnPath on_path(path, kColumns, column_bytes(problem));
  check_problem(problem, {.every_schedule = false});
  on_path.check_launch(16, {.whole = true, .asks_ahead = true});
}

/// Several batches of groups for a thread, of which the last one is not full.
void test_batches(const Path& path) {
  context = "batches";
  const Problem problem = dense_problem(DType::kBFloat16, DType::kBFloat16, 5003, 5);
  const OnPath on_path(path, 5003, column_bytes(problem));
  check_problem(problem, {.every_schedule = false});
  on_path.check_launch(3, {});
}

/// The gradient in the place of the student's logits, and alone.
void test_places(const Path& path, DType dtype, int64_t vocabulary, int64_t label) {
  context = std::string("in place, ") + name_of(dtype) + ", label " + std::to_string(label);
  Problem problem = dense_problem(dtype, DType::kBFloat16, vocabulary);
  problem.labels[0] = label;
  const OnPath on_path(path, vocabulary, column_bytes(problem));
  const TadLossArguments a = problem.arguments();
  Matrix expected(dtype, 3, vocabulary), alone(dtype, 3, vocabulary);
  const std::vector<double> losses = run_gradient(a, expected.mutable_view());
  run_gradient_alone(a, alone.mutable_view());
  CHECK(alone.bytes() == expected.bytes());
  CHECK(run_gradient(a, problem.student.mutable_view()) == losses);
  CHECK(problem.student.bytes() == expected.bytes());
}

/// Every entry on its own gives the bits it gives in company.
void test_a_row_alone(const Path& path) {
  Problem problem = dense_problem(DType::kBFloat16, DType::kBFloat16, 523);
  problem.labels[0] = 519;
  for (int64_t vocabulary : {520, 523}) {  // of the first a row alone is of whole groups on 16-byte boundaries
    context = "a row of " + std::to_string(vocabulary) + " alone";
    const OnPath on_path(path, vocabulary, column_bytes(problem));
    TadLossArguments a = problem.arguments();
    a.vocabulary = vocabulary;
    Matrix together(DType::kBFloat16, 3, 523);
    const std::vector<double> losses = run_gradient(a, together.mutable_view());
    a.entries = 1;
    for (int64_t entry = 0; entry < 2; ++entry, ++a.labels, ++a.steps) {
      a.student = problem.student.view(entry, 1);
      a.teacher = problem.teacher.view(entry, 1);
      Matrix alone(DType::kBFloat16, 1, 523);
      CHECK(run_gradient(a, alone.mutable_view())[0] == losses[size_t(entry)]);
      for (int64_t i = 0; i < vocabulary; ++i) CHECK(alone.get(0, i) == together.get(entry, i));
    }
  }
}

/// Counts before the visit and totals after it, in launches that overlap, give the bits of launches one by one.
void test_a_whole_call(const Path& path) {
  context = "a whole call";
  const Problem problem = dense_problem(DType::kFloat32, DType::kFloat32, 640);
  const OnPath on_path(path, 640, column_bytes(problem));
  const TadLossArguments a = problem.arguments();
  const auto totals_in = [](std::vector<float>& numbers, std::vector<int64_t>& counts) {
    return TadTotals{&numbers[0], &numbers[1], &numbers[2], &counts[0], &counts[1]};
  };
  std::vector<float> expected_numbers = poisoned<float>(3);
  std::vector<int64_t> expected_counts = poisoned<int64_t>(2);
  Matrix expected(DType::kFloat32, 3, 640);
  const std::vector<double> expected_losses = run_gradient(a, expected.mutable_view());
  CHECK(cuda::tad_totals(a, expected_losses.data(), totals_in(expected_numbers, expected_counts), nullptr) == 0);
  TadLossArguments uncounted = a;
  uncounted.near_count = uncounted.distant_count = nullptr;
  under_every_schedule([&](bool) {
    for (const bool has_losses : {true, false}) {
      std::vector<float> numbers = poisoned<float>(3);
      std::vector<int64_t> counts = poisoned<int64_t>(2);
      std::vector<double> losses = poisoned<double>(3);
      Matrix rows(DType::kFloat32, 3, 640);
      const TadGradient gradient{rows.mutable_view()};
      const TadTotals all = totals_in(numbers, counts), totals = has_losses ? all : all.counts();
      CHECK(cuda::tad_loss(uncounted, has_losses ? losses.data() : nullptr, &gradient, {}, &totals, nullptr) == 0);
      CHECK(rows.bytes() == expected.bytes() && counts == expected_counts);
      if (has_losses) CHECK(losses == expected_losses && numbers == expected_numbers);
    }
    return expected.bytes();
  });
  std::vector<float> numbers = poisoned<float>(3);
  std::vector<int64_t> counts = poisoned<int64_t>(2);
  std::vector<double> losses = poisoned<double>(3);
  const TadTotals totals = totals_in(numbers, counts);
  CHECK(cuda::tad_loss(uncounted, losses.data(), nullptr, {}, &totals, nullptr) == 0);
  CHECK(losses == expected_losses && numbers == expected_numbers && counts == expected_counts);

  Matrix no_rows(DType::kFloat32, 0, 640);  // no visit comes between
  const TadGradient of_no_rows{no_rows.mutable_view()};
  const TadTotals counts_alone = totals.counts();
  counts.assign(2, -1);
  CHECK(cuda::tad_loss(uncounted, nullptr, &of_no_rows, {}, &counts_alone, nullptr) == 0);
  CHECK(counts == expected_counts);

  uncounted.entries = 0;
  numbers.assign(3, kNaN);
  CHECK(cuda::tad_loss(uncounted, nullptr, nullptr, {}, &totals, nullptr) == 0);
  CHECK(counts == std::vector<int64_t>({0, 0}) && numbers == std::vector<float>(3));

  uncounted.entries = 3;
  const int64_t silent[3] = {};  // of which none asks for the counts
  uncounted.steps = silent;
  Matrix rows(DType::kFloat32, 3, 640);
  const TadGradient gradient{rows.mutable_view()};
  CHECK(cuda::tad_loss(uncounted, losses.data(), &gradient, {}, &totals, nullptr) == 0);
  CHECK(counts == std::vector<int64_t>({0, 0}) && numbers[0] == 0 && rows.get(2, 639) == 0);
}

void test_equal_rows_have_no_divergence(const Path& path) {
  context = "student is teacher";
  Matrix logits(DType::kFloat32, 1, 523);
  const Problem problem{logits.randomize(9, 20), logits, {0}, {9}, {}, {}, {}};
  const OnPath on_path(path, 523, column_bytes(problem));
  Matrix gradient(DType::kFloat32, 1, 523);
  CHECK(run_gradient(problem.arguments(), gradient.mutable_view())[0] == 0);
  for (double x : gradient.row(0)) CHECK(x == 0);
}

}  // namespace

int main() {
  for (const Path& path : kPaths) {
    if (is_left_out(path)) continue;
    test_row_lists(path);
    test_a_whole_call(path);
    test_places(path, DType::kBFloat16, 640, /*label=*/3);  // in the group that its reader writes
    test_places(path, DType::kBFloat16, 640, /*label=*/639);
    if (kThreads) continue;
    test_dtypes(path, 523, /*same_dtype=*/true);
    test_dtypes(path, 523, /*same_dtype=*/false);
    test_dtypes(path, 640, /*same_dtype=*/true);
    test_batches(path);
    test_one_after_the_other(path);
    test_places(path, DType::kFloat32, 523, /*label=*/522);
    test_a_row_alone(path);
    test_equal_rows_have_no_divergence(path);
  }
  return report();
}
