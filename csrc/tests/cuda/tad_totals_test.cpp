// The CUDA kernel that adds up a call's losses, run on the host: counts, means, denominators, switched-off parts.
#include "runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

struct Case {
  DType dtype;
  int64_t entries;
  bool weighted;
  const double *near_denominator, *distant_denominator;  // null: own counts
};

template <class Real>
void check_totals(const Case& c) {
  std::mt19937 generator(17);
  std::uniform_real_distribution<double> uniform(0, 1);
  std::vector<int64_t> steps;
  const std::vector<int64_t> labels(size_t(c.entries));
  std::vector<double> losses, weights;
  double ce = 0, kl = 0;
  int64_t near_count = 0, distant_count = 0;
  for (int64_t i = 0; i < c.entries; ++i) {
    steps.push_back(i * 7 % 11 - 2);
    const bool without_weight = c.weighted && i % 5 == 1;  // adds nothing
    losses.push_back(without_weight ? kNaN : uniform(generator));
    weights.push_back(without_weight ? 0 : uniform(generator));
    const double loss = without_weight ? 0 : losses.back() * (c.weighted ? weights.back() : 1);
    if (steps.back() > 3) {
      kl += loss;
      ++distant_count;
    } else if (steps.back() > 0) {
      ce += loss;
      ++near_count;
    }
  }
  const double near_given = c.near_denominator ? *c.near_denominator : double(near_count);
  const double distant_given = c.distant_denominator ? *c.distant_denominator : double(distant_count);
  ce /= near_given == 0 ? 1 : near_given;
  kl *= 1.7 * 1.7 / (distant_given == 0 ? 1 : distant_given);

  TadLossArguments a;
  a.student = {nullptr, 0, c.dtype, c.entries};
  a.vocabulary = 1;
  a.entries = c.entries;
  a.labels = labels.data();
  a.steps = steps.data();
  a.row_weight = c.weighted ? weights.data() : nullptr;
  a.near_denominator = c.near_denominator;
  a.distant_denominator = c.distant_denominator;
  a.delta = 3;
  a.ce_weight = 0.5;
  a.kl_weight = 2;
  a.temperature = 1.7;
  under_every_schedule([&](bool) {
    std::vector<Real> numbers = poisoned<Real>(3);
    std::vector<int64_t> counts = poisoned<int64_t>(2);
    CHECK(
        cuda::tad_totals(a, losses.data(), {&numbers[0], &numbers[1], &numbers[2], &counts[0], &counts[1]}, nullptr) ==
        0);
    const double error = sizeof(Real) == 8 ? 1e-13 : 1e-7;
    CHECK_NEAR(double(numbers[0]), 0.5 * ce + 2 * kl, error * (0.5 * ce + 2 * kl));
    CHECK_NEAR(double(numbers[1]), ce, error * ce);
    CHECK_NEAR(double(numbers[2]), kl, error * kl);
    CHECK(counts[0] == near_count && counts[1] == distant_count);
    std::vector<unsigned char> bytes;
    append(bytes, numbers);
    append(bytes, counts);

    counts = poisoned<int64_t>(2);  // the counts alone
    CHECK(cuda::tad_totals(a, nullptr, {nullptr, nullptr, nullptr, &counts[0], &counts[1]}, nullptr) == 0);
    CHECK(counts[0] == near_count && counts[1] == distant_count);
    return bytes;
  });
}

void test_means_and_counts() {
  const double zero = 0, given = 41.5;
  const double* denominators[] = {nullptr, &zero, &given};
  for (int64_t entries : {1300, 33, 1, 0}) {
    for (int variant = 0; variant < 3; ++variant) {
      const Case c{DType::kFloat32, entries, variant == 1, denominators[variant], denominators[(variant + 1) % 3]};
      context = std::to_string(entries) + " entries, variant " + std::to_string(variant);
      check_totals<float>(c);
      if (kThreads) return;
      check_totals<double>({DType::kFloat64, entries, variant != 1, c.distant_denominator, c.near_denominator});
    }
  }
}

/// Whatever its loss holds, which with a gradient nobody may have written.
void test_an_entry_out_of_range_is_nan() {
  struct Change {
    const char* name;
    int64_t student_row, teacher_row, label, steps;
  };
  const Change changes[] = {
      {"nothing", 1, 1, 2, 1},
      {"student row -1", -1, 1, 2, 1},
      {"student row behind the last", 2, 1, 2, 1},
      {"label -1", 1, 1, -1, 1},
      {"label behind the last", 1, 1, 3, 1},
      {"teacher row -1", 1, -1, 9, 5},
      {"teacher row behind the last", 1, 2, 9, 5},
      {"silent, student row", 2, 0, 0, 0}};
  for (const Change& change : changes) {
    context = change.name;
    const int64_t students[] = {0, change.student_row}, teachers[] = {9, change.teacher_row};  // 9: a near entry's
    const int64_t labels[] = {0, change.label}, steps[] = {1, change.steps};
    const double losses[] = {0.5, 0.25};
    TadLossArguments a;
    a.student = {losses, 3, DType::kFloat32, 2};
    a.teacher = {losses, 3, DType::kFloat32, 2};
    a.vocabulary = 3;
    a.entries = 2;
    a.student_rows = students;
    a.teacher_rows = teachers;
    a.labels = labels;
    a.steps = steps;
    a.delta = 1;
    std::vector<float> numbers = poisoned<float>(3);
    std::vector<int64_t> counts = poisoned<int64_t>(2);
    CHECK(cuda::tad_totals(a, losses, {&numbers[0], &numbers[1], &numbers[2], &counts[0], &counts[1]}, nullptr) == 0);
    const bool is_near = change.steps == 1, is_distant = change.steps > 1, is_valid = &change == changes;
    CHECK_NEAR(numbers[1], is_near ? (is_valid ? 0.375 : kNaN) : 0.5, 1e-7);
    CHECK_NEAR(numbers[2], is_distant ? kNaN : 0, 1e-7);
    CHECK_NEAR(numbers[0], is_valid ? 0.375 : change.steps == 0 ? 0.5 : kNaN, 1e-7);
    CHECK(counts[0] == 1 + is_near && counts[1] == is_distant);
  }
}

void test_a_part_that_is_switched_off_adds_nothing() {
  context = "ce_weight 0";
  const int64_t steps[] = {1, 9}, labels[] = {0, 0};
  const double losses[] = {kInfinity, 0.25};
  TadLossArguments a;
  a.student.row_count = 2;
  a.vocabulary = 1;
  a.entries = 2;
  a.labels = labels;
  a.steps = steps;
  a.delta = 1;
  a.ce_weight = 0;
  std::vector<float> numbers = poisoned<float>(3);
  std::vector<int64_t> counts = poisoned<int64_t>(2);
  CHECK(cuda::tad_totals(a, losses, {&numbers[0], &numbers[1], &numbers[2], &counts[0], &counts[1]}, nullptr) == 0);
  CHECK(numbers == std::vector<float>({0.25f, INFINITY, 0.25f}));
  CHECK(counts == std::vector<int64_t>({1, 1}));
}

}  // namespace

int main() {
  test_means_and_counts();
  if (kThreads) return report();
  test_an_entry_out_of_range_is_nan();
  test_a_part_that_is_switched_off_adds_nothing();
  return report();
}
