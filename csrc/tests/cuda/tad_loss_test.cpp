// The CUDA kernel of the partitioned loss, run on the host: losses and gradients against float64 formulas, on dtypes,
// sizes and row lists of every kind. cuda_tad_loss_paths_test.cpp has the ways in which a row is worked on,
// cuda_tad_totals_test.cpp the totals.
#include "tad_loss_runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

/// Five entries, two near, two distant and a silent one; dtypes and layout vary with `variant`.
Problem compact_problem(int64_t vocabulary, int variant) {
  const int64_t gap = variant % 3, offset = variant % 2;  // rows that begin anywhere, and on 16-byte boundaries
  Matrix student(kDTypes[variant % 4], 5, vocabulary, gap, offset);
  Matrix teacher(kDTypes[variant / 2 % 4], 5, vocabulary, variant % 2 * 8, variant / 4 % 2);
  Problem problem{student.randomize(1), teacher.randomize(2), {}, {1, 9, 0, 4, 5}, {}, {}, {}};
  problem.labels = {vocabulary - 1, -1, -1, vocabulary / 2, vocabulary};
  if (variant % 2) problem.weights = {0.5, 2, 7, 1.25, 3};
  return problem;
}

void test_sizes_and_dtypes() {
  for (int64_t vocabulary : awkward_sizes()) {
    for (int variant = 0; variant < (vocabulary < 1000 ? 8 : 4); ++variant) {
      const Problem problem = compact_problem(vocabulary, variant);
      context = "V " + std::to_string(vocabulary) + ", " + name_of(problem.student.dtype()) + " and " +
                name_of(problem.teacher.dtype());
      check_problem(problem, {.gap = variant % 3, .offset = variant % 2});
      if (kThreads) return;
    }
  }
}

/// Rows named twice add, rows not named are zero, in a gradient of all rows.
void test_row_lists() {
  for (DType dtype : kDTypes) {
    context = std::string("row lists, ") + name_of(dtype);
    Matrix student(dtype, 5, 70, 3, 1), teacher(DType::kBFloat16, 4, 70);
    Problem problem{student.randomize(3), teacher.randomize(4),   {5, 69, 0, 1, 7, 0},    {2, 1, 8, 3, 9, 0},
                    {3, 1, 3, 3, 0, 1},   {-1, -1, 2, -1, 3, -1}, {1, 0.5, 3, 0.25, 2, 1}};
    check_problem(problem, {.gap = 5, .offset = 1});
    if (kThreads) return;
  }
}

/// Several rounds of the search for a row's entries, and rows of more entries than a warp has lanes.
void test_many_entries() {
  context = "many entries";
  constexpr int64_t kRows = 90, kEntries = 1100;
  Matrix logits(DType::kFloat32, kRows, 9);
  Problem problem{logits.randomize(13), logits, {}, {}, {}, {}, {}};
  for (int64_t entry = 0; entry < kEntries; ++entry) {
    problem.labels.push_back(entry % 9);
    problem.steps.push_back(1);
    problem.student_rows.push_back(entry % 10 ? entry * 7 % 50 : 80);  // rows from 50 on are not named, but 80
  }
  problem.near_given = kEntries;
  check_problem(problem, {.every_schedule = false});
}

/// 1 - 1 + 2^-10 in bfloat16 is 2^-10 in this order only.
void test_entries_that_share_a_row_add_in_their_order() {
  context = "order of entries";
  Matrix logits(DType::kBFloat16, 1, 9);
  logits.set_row(0, std::vector<double>(9));
  Problem problem{logits, logits, {2, 2, 2}, {1, 1, 1}, {0, 0, 0}, {}, {9, -9, 9.0 / 1024}};
  problem.ce_weight = problem.near_given = 1;
  Matrix gradient(DType::kBFloat16, 1, 9);
  run_gradient(problem.arguments(), gradient.mutable_view());
  CHECK_NEAR(gradient.get(0, 2), -8.0 / 1024, 1e-9);
  CHECK_NEAR(gradient.get(0, 0), 1.0 / 1024, 1e-9);
}

/// An index out of range gives its entry NaN and touches nothing else; what an entry does not read may be anything.
void test_indices_out_of_range() {
  context = "indices out of range";
  Matrix student(DType::kFloat32, 6, 9), teacher(DType::kFloat32, 2, 9);
  Problem problem{
      student.randomize(5),
      teacher.randomize(6),
      {-1, 9, 3, 0, -7, 2, 4},
      {1, 1, 1, 7, 7, 0, 2},
      {0, 1, 6, 2, 3, -1, 5},
      {0, 0, 0, 2, -1, 0, 99},
      {}};
  check_problem(problem);
}

void test_infinite_and_missing_values() {
  context = "infinite and missing values";
  constexpr int64_t kColumns = 20;
  Matrix logits(DType::kFloat32, 8, kColumns), other(DType::kFloat32, 8, kColumns);
  logits.randomize(7);
  other.randomize(8);
  for (int64_t column = 0; column < kColumns; ++column) {
    logits.set(0, column, -kInfinity);  // nothing is possible
    if (column > 11) logits.set(1, column, -kInfinity);
    if (column < 9) logits.set(2, column, -kInfinity);
    logits.set(5, column, column % 2 ? 1e30 : -1e30);
  }
  logits.set(3, 17, kNaN);
  logits.set(4, 8, kInfinity);
  for (int64_t near = 0; near < 2; ++near) {
    const std::vector<int64_t> steps(8, near ? 1 : 9), labels = {0, 3, 10, 1, 2, 7, 0, 0};
    check_problem({logits, other, labels, steps, {}, {}, {}});
    if (!near) check_problem({other, logits, labels, steps, {}, {}, {}});
    Problem without_weight{logits, other, labels, steps, {}, {}, std::vector<double>(8, 0)};  // no gradient
    check_problem(without_weight);
    without_weight.weights.clear();
    without_weight.ce_weight = without_weight.kl_weight = 0;
    check_problem(without_weight);
    if (kThreads) return;
  }
}

/// References move where a thread's logits rise by hundreds from batch to batch, and stay where they fall.
void test_levels() {
  constexpr int64_t kColumns = 8195;
  context = "levels";
  Matrix student(DType::kFloat32, 4, kColumns), teacher(DType::kFloat32, 4, kColumns);
  student.randomize(12);
  teacher.randomize(13);
  for (int64_t column = 0; column < kColumns; ++column)
    for (int64_t row = 0; row < 4; ++row) {
      const double level = (row % 2 ? 150.0 : -150.0) * double(column / 1024);
      student.set(row, column, student.get(row, column) + level);
      teacher.set(row, column, teacher.get(row, column) + level);
    }
  check_problem({student, teacher, {5, 8190, 0, 0}, {1, 1, 9, 9}, {}, {}, {}}, {.every_schedule = false});
}

/// Of two numbers in a word the second is far above the first.
void test_every_second_column_far_above() {
  for (DType dtype : {DType::kBFloat16, DType::kFloat16}) {
    context = std::string("every second column far above, ") + name_of(dtype);
    Matrix student(dtype, 2, 515), teacher(dtype, 2, 515);
    student.randomize(16);
    teacher.randomize(17);
    for (int64_t column = 1; column < 515; column += 2)
      for (Matrix* matrix : {&student, &teacher})
        for (int64_t row = 0; row < 2; ++row) matrix->set(row, column, matrix->get(row, column) + 300);
    check_problem({student, teacher, {3, 0}, {1, 9}, {}, {}, {}});
  }
}

/// Around 2^24 / log2(e), from where on float32 does not count powers of two one by one, rows rise and fall.
void test_huge_logits() {
  constexpr int64_t kColumns = 8195;
  context = "huge logits";
  Matrix student(DType::kFloat32, 4, kColumns), teacher(DType::kFloat32, 4, kColumns);
  for (int64_t column = 0; column < kColumns; ++column)
    for (int64_t row = 0; row < 4; ++row) {
      const double level = (row < 2 ? 1 : -1) * (11629080.0 + (row % 2 ? 20 : -20) * double(column / 1024 - 4));
      student.set(row, column, level + double(column * 7 % 11));
      teacher.set(row, column, level + double(column * 5 % 13));
    }
  for (int64_t near = 0; near < 2; ++near)
    check_problem(
        {student, teacher, {5, 8190, 70, 9}, std::vector<int64_t>(4, near ? 1 : 9), {}, {}, {}},
        {.every_schedule = false});
}

/// Where float32 has no digits left for a factor in the exponents, and 16 bits hardly any for the logits.
void test_large_logits_of_16_bits() {
  for (const auto& [dtype, level] : {std::pair(DType::kBFloat16, 5e6), {DType::kFloat16, 6e4}})
    for (double sign : {1., -1.}) {
      context = std::string("large logits, ") + name_of(dtype);
      Matrix student(dtype, 2, 520), teacher(dtype, 2, 520);
      for (int64_t column = 0; column < 520; ++column)
        for (int64_t row = 0; row < 2; ++row) {
          student.set(row, column, sign * level);
          teacher.set(row, column, double(column * 5 % 13));
        }
      check_problem({student, teacher, {5, 70}, {1, 9}, {}, {}, {}}, {.every_schedule = false});
      if (kThreads) return;
    }
}

/// The difference of their levels has no digits left, and the teachers rise from warp to warp.
void test_huge_students_far_from_their_teachers() {
  context = "huge students far from their teachers";
  constexpr int64_t kRows = 24;
  Matrix student(DType::kFloat32, kRows, 2048), teacher(DType::kFloat32, kRows, 2048);
  for (int64_t row = 0; row < kRows; ++row)
    for (int64_t column = 0; column < 2048; ++column) {
      const double sign = row % 2 ? 1 : -1, rise = 9 * double(column / 256);
      student.set(row, column, sign * (8.2e6 + 131071 * double(row)) + double(column * 7 % 11));
      teacher.set(row, column, -sign * (11.6e6 - 123457 * double(row)) + rise + double(column * 5 % 13));
    }
  const std::vector<int64_t> labels(kRows), steps(kRows, 9);
  check_problem({student, teacher, labels, steps, {}, {}, {}}, {.every_schedule = false});
}

/// Some warps have nothing, and move it by more than float32 has.
void test_a_logit_near_the_largest_number() {
  context = "a logit near the largest number";
  Matrix student(DType::kFloat32, 1, 20), teacher(DType::kFloat32, 1, 20);
  for (int64_t column = 0; column < 20; ++column) {
    student.set(0, column, column == 3 ? 3e38 : -double(column % 7));
    teacher.set(0, column, column == 3 ? 500 : -500);
  }
  check_problem({student, teacher, {3}, {9}, {}, {}, {}}, {.every_schedule = false});
}

/// Of a student and a teacher that are sure of the same token, each at its own height.
void test_a_divergence_far_below_the_last_digit_of_1() {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    context = std::string("sure rows, ") + name_of(dtype);
    Matrix student(dtype, 1, 515), teacher(dtype, 1, 515);
    Problem problem{student.randomize(14), teacher.randomize(15), {0}, {9}, {}, {}, {}};
    problem.student.set(0, 300, 35);
    problem.teacher.set(0, 300, 33);
    const double expected = problem.loss(0);
    CHECK_NEAR(run_losses(problem.arguments())[0], expected, 1e-3 * expected);
  }
}

void test_equal_rows_have_no_divergence() {
  for (DType dtype : kDTypes) {
    context = std::string("student is teacher, ") + name_of(dtype);
    Matrix logits(dtype, 2, 515);
    Problem problem{logits.randomize(9, 20), logits, {0, 0}, {9, 9}, {}, {}, {}};
    problem.teacher = problem.student;
    Matrix gradient(dtype, 2, 515);
    CHECK(run_gradient(problem.arguments(), gradient.mutable_view()) == std::vector<double>({0, 0}));
    for (int64_t column = 0; column < 515; ++column)
      CHECK(gradient.get(0, column) == 0 && gradient.get(1, column) == 0);
    if (kThreads) return;
  }
}

void test_options() {
  context = "no teacher";
  Problem problem = compact_problem(100, 0);
  TadLossArguments a = problem.arguments();
  a.teacher.data = nullptr;
  Matrix gradient(DType::kFloat32, 5, 100);
  std::vector<double> losses = run_gradient(a, gradient.mutable_view());
  CHECK(losses[1] == 0 && losses[0] > 0 && losses == run_losses(a));
  CHECK(gradient.row(1) == std::vector<double>(100) && gradient.get(0, 99) < 0);

  context = "without losses, and without grad_loss";
  check_problem(problem, {.has_grad_loss = false});
  gradient = Matrix(DType::kFloat32, 5, 100);
  run_gradient_alone(problem.arguments(), gradient.mutable_view());
  check_gradient(problem, 1, gradient);

  context = "divided by the numbers of entries";
  problem.own_counts = true;
  check_problem(problem);

  context = "denominators of 0";
  problem.own_counts = false;
  problem.near_given = problem.distant_given = 0;  // count as 1
  check_problem(problem);

  context = "no entries";
  problem.steps.clear();
  CHECK(run_losses(problem.arguments()).empty());
  gradient = Matrix(DType::kFloat32, 5, 100);
  run_gradient(problem.arguments(), gradient.mutable_view());
  for (int64_t row = 0; row < 5; ++row) CHECK(gradient.row(row) == std::vector<double>(100));
}

void test_rows_far_apart() {
  context = "rows far apart";
  Matrix student(DType::kBFloat16, DistantRows::kRows, 20), teacher(DType::kBFloat16, DistantRows::kRows, 20);
  DistantRows far_student(20), far_teacher(20), far_gradient(20);
  far_student.copy_from(student.randomize(10));
  far_teacher.copy_from(teacher.randomize(11));
  const Problem problem{student, teacher, {0, 19, 2, 3, 4, 5}, {1, 9, 2, 9, 3, 9}, {}, {}, {}};
  TadLossArguments a = problem.arguments();
  a.student = far_student.view();
  a.teacher = far_teacher.view();
  check_losses(problem, run_gradient(a, far_gradient.mutable_view()));
  Matrix gradient(DType::kBFloat16, DistantRows::kRows, 20);
  far_gradient.copy_to(gradient);
  check_gradient(problem, 1, gradient);

  context = "teacher rows of another dtype far apart";
  Matrix student32(DType::kFloat32, DistantRows::kRows, 20);
  const Problem mixed{student32.randomize(12), teacher, {0, 0, 0, 0, 0, 0}, {9, 9, 9, 9, 9, 9}, {}, {}, {}};
  a = mixed.arguments();
  a.teacher = far_teacher.view();
  check_losses(mixed, run_losses(a));
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  test_row_lists();
  if (!kThreads) test_many_entries();
  test_entries_that_share_a_row_add_in_their_order();
  test_equal_rows_have_no_divergence();
  if (kThreads) return report();
  test_indices_out_of_range();
  test_infinite_and_missing_values();
  test_levels();
  test_every_second_column_far_above();
  test_huge_logits();
  test_large_logits_of_16_bits();
  test_huge_students_far_from_their_teachers();
  test_a_logit_near_the_largest_number();
  test_a_divergence_far_below_the_last_digit_of_1();
  test_options();
  test_rows_far_apart();
  return report();
}
