// The CPU kernels of the partitioned loss, of every instruction set that this processor has, slice by slice: losses and
// gradients against float64 formulas.
#include "../../common/entries.h"
#include "../../cpu/kernels.h"
#include "../tad_problem.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};
constexpr int64_t kSeveralSlices = 3 * kSlice + kBlock + 13;

/// A problem's losses and gradient by one table of kernels, as the backend calls them.
template <class Real>
class OnCpu {
 public:
  OnCpu(const CpuKernels& kernels, const Problem& problem)
      : kernels_(kernels.of<Real>()),
        problem_(problem),
        a_(problem.arguments()),
        blocks_((a_.vocabulary + kBlock - 1) / kBlock),
        exponentials_(2 * size_t(blocks_ * (kBlock + 1))) {}

  /// The losses alone.
  std::vector<double> losses() {
    std::vector<double> all;
    for (int64_t entry = 0; entry < a_.entries; ++entry) all.push_back(visit(entry, nullptr).loss);
    return all;
  }

  /// The losses, and the gradient into `rows`: zero in those that no entry names.
  std::vector<double> losses(const MutableRows& rows, double grad_loss) {
    std::vector<double> all;
    std::vector<bool> written(size_t(a_.student.row_count));
    Real* memory = exponentials_.data();
    const int64_t columns = blocks_ * kBlock;
    const Exponentials<Real> kept{memory, memory + columns, memory + 2 * columns, memory + 2 * columns + blocks_};
    for (int64_t entry = 0; entry < a_.entries; ++entry) {
      std::fill(exponentials_.begin(), exponentials_.end(), Real(kNaN));
      const Visited visited = visit(entry, &kept);
      all.push_back(visited.loss);
      const int64_t row = problem_.student_row(size_t(entry));
      const double scale = grad_loss * portable::gradient_scale(a_, entry, portable::kind_of(a_, entry));
      for (int64_t slice = 0; slice < slices_of(a_.vocabulary); ++slice)
        kernels_.tad_gradient(a_, entry, slice, kept, visited.row, scale, rows, row, written[size_t(row)]);
      written[size_t(row)] = true;
    }
    for (int64_t row = 0; row < a_.student.row_count; ++row)
      for (int64_t slice = 0; slice < slices_of(a_.vocabulary) && !written[size_t(row)]; ++slice)
        kernels_.zero(rows, a_.vocabulary, row, slice);
    return all;
  }

 private:
  struct Visited {
    SliceSums row;
    double loss;
  };
  Visited visit(int64_t entry, const Exponentials<Real>* kept) {
    std::vector<SliceSums> sums(size_t(slices_of(a_.vocabulary)));
    for (size_t slice = sums.size(); slice-- > 0;)  // in any order
      kernels_.tad_sums(a_, entry, int64_t(slice), kept, &sums[slice]);
    const double loss = kernels_.tad_loss(a_, entry, sums.data());
    return {sums[0], loss};
  }

  const KernelsOf<Real>& kernels_;
  const Problem& problem_;
  TadLossArguments a_;
  int64_t blocks_;
  std::vector<Real> exponentials_;
};

template <class Real>
void check_problem(const CpuKernels& kernels, const Problem& problem) {
  OnCpu<Real> on_cpu(kernels, problem);
  const std::vector<double> losses = on_cpu.losses();
  check_losses(problem, losses);
  Matrix gradient(problem.student.dtype(), problem.student.view().row_count, problem.student.columns(), 3, 1);
  const std::vector<double> with_gradient = on_cpu.losses(gradient.mutable_view(), -2.5);
  CHECK(std::memcmp(with_gradient.data(), losses.data(), sizeof(double) * losses.size()) == 0);
  check_gradient(problem, -2.5, gradient);

  Matrix streamed(problem.student.dtype(), problem.student.view().row_count, problem.student.columns(), 3, 1);
  MutableRows many = streamed.mutable_view();
  many.row_count = 8 << 20;  // as many bytes go past the caches
  on_cpu.losses(many, -2.5);
  CHECK(streamed.gaps_are_untouched());
  for (int64_t row = 0; row < problem.student.view().row_count; ++row)
    for (int64_t column = 0; column < problem.student.columns(); ++column)
      CHECK_NEAR(streamed.get(row, column), gradient.get(row, column), 0);
}

/// By every instruction set.
void check(const Problem& problem) {
  const std::string outer = context;
  for (const CpuKernels* kernels : runnable_cpu_kernels()) {
    context = outer + ", " + kernels->instruction_set;
    if (problem.student.dtype() == DType::kFloat64)
      check_problem<double>(*kernels, problem);
    else
      check_problem<float>(*kernels, problem);
  }
  context = outer;
}

/// Two near entries of one row, two distant ones, a silent one, and a row that no entry names.
void test_sizes_and_dtypes() {
  for (int64_t vocabulary : {int64_t(1), int64_t(15), int64_t(16), kBlock + 1, kSlice, kSlice + 1, kSeveralSlices}) {
    for (int variant = 0; variant < 8; ++variant) {
      const DType dtype = kDTypes[variant % 4], other = kDTypes[variant < 4 ? variant : (variant + 1) % 4];
      context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype) + " and " + name_of(other);
      Matrix student(dtype, 5, vocabulary, variant % 3, variant % 2), teacher(other, 4, vocabulary, variant % 2);
      Problem problem{
          student.randomize(1),
          teacher.randomize(2),
          {vocabulary - 1, 0, 0, vocabulary / 2, 0},
          {1, 9, 0, 4, 5},
          {0, 1, 2, 0, 3},
          {-1, 3, -1, -1, 0},
          {}};
      if (variant % 2) problem.weights = {0.5, 2, 7, 1.25, 3};
      problem.own_counts = variant > 3;
      check(problem);
    }
  }
}

/// Rows whose blocks lie hundreds apart, upwards, downwards and at random, some of them at -inf: references move within
/// a slice and from slice to slice. Both rows of a pair move alike, or each on its own.
Matrix uneven(DType dtype, unsigned seed) {
  Matrix logits(dtype, 4, kSeveralSlices);
  logits.randomize(seed);
  std::mt19937 generator(7);
  const int64_t blocks = (kSeveralSlices + kBlock - 1) / kBlock;
  for (int64_t block = 0; block < blocks; ++block) {
    const double nothing = generator() % 4 == 0 ? -kInfinity : 0;
    const double levels[] = {
        40.0 * double(block) - 900, -40.0 * double(block), double(generator() % 5) * 200 - 1000,
        block % 3 == 0 ? -kInfinity : -400};
    for (int64_t row = 0; row < 4; ++row)
      for (int64_t i = block * kBlock; i < (block + 1) * kBlock && i < kSeveralSlices; ++i)
        logits.set(row, i, logits.get(row, i) + levels[row] + (row == 2 ? nothing : 0));
  }
  return logits;
}

void test_levels() {
  for (DType dtype : kDTypes) {
    const Matrix student = uneven(dtype, 3), teacher = uneven(dtype, 4);
    const int64_t possible = kBlock + 5;  // in every row
    context = std::string("levels, near, ") + name_of(dtype);
    check({student, teacher, {possible, possible, possible, possible}, {1, 1, 1, 1}, {}, {}, {}});
    context = std::string("levels, distant, ") + name_of(dtype);
    check({student, teacher, {0, 0, 0, 0}, {9, 9, 9, 9}, {}, {}, {}});
    context = std::string("levels, distant, other levels, ") + name_of(dtype);
    check({student, teacher, {0, 0, 0, 0}, {9, 9, 9, 9}, {}, {1, 0, 2, 3}, {}});
  }
}

/// Logits that are ordinary numbers but for one, at every place of the vectors that a block is read in.
void test_one_extraordinary_logit() {
  constexpr int64_t kRows = 70, kColumns = 192;
  const std::vector<int64_t> near(kRows, 1), distant(kRows, 9), labels(kRows, 3);
  for (DType dtype : kDTypes)
    for (double value : {44.0, -45.0, 57.0, -130.0, 1e4, kInfinity, -kInfinity, kNaN}) {
      context = std::string("one ") + std::to_string(value) + ", " + name_of(dtype);
      Matrix logits(dtype, kRows, kColumns), other(dtype, kRows, kColumns);
      logits.randomize(9, 2);
      other.randomize(10, 2);
      for (int64_t row = 0; row < kRows; ++row) logits.set(row, row, value);
      check({logits, other, labels, near, {}, {}, {}});
      check({logits, other, labels, distant, {}, {}, {}});
      check({other, logits, labels, distant, {}, {}, {}});
    }
}

/// Ordinary blocks, whose exponentials are not relative to anything, in a row that has its peak far above them all.
void test_ordinary_blocks_below_a_peak() {
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) {
    context = std::string("a peak in another slice, ") + name_of(dtype);
    Matrix logits(dtype, 4, kSeveralSlices), other(dtype, 4, kSeveralSlices);
    logits.randomize(11);
    other.randomize(12);
    const double peaks[] = {50, 90, 110, 150};
    for (int64_t row = 0; row < 4; ++row) logits.set(row, row * kSlice + 5, peaks[row]);
    check({logits, other, {1, 2, 3, 4}, {1, 1, 1, 1}, {}, {}, {}});
    check({logits, other, {1, 2, 3, 4}, {9, 9, 9, 9}, {}, {}, {}});
    check({other, logits, {1, 2, 3, 4}, {9, 9, 9, 9}, {}, {}, {}});
  }
}

/// A small divergence keeps its digits however far apart the two rows' logits stand; a few nats cost some of them.
void test_rows_that_stand_apart() {
  constexpr int64_t kColumns = 3 * kBlock;
  for (double apart : {0.0, -1.5, 3.3, -3.3, 7.5, -40.0, 400.0}) {
    context = "teacher above student by " + std::to_string(apart);
    Matrix student(DType::kFloat32, 4, kColumns), teacher(DType::kFloat32, 4, kColumns);
    student.randomize(13);
    std::mt19937 generator(14);
    std::normal_distribution<double> noise(0, 0.02);
    for (int64_t row = 0; row < 4; ++row)
      for (int64_t i = 0; i < kColumns; ++i) teacher.set(row, i, student.get(row, i) + apart + noise(generator));
    const Problem problem{student, teacher, {0, 0, 0, 0}, {9, 9, 9, 9}, {}, {}, {}};
    check(problem);
    for (const CpuKernels* kernels : runnable_cpu_kernels()) {
      const std::vector<double> losses = OnCpu<float>(*kernels, problem).losses();
      const double error = std::abs(apart) < 4 ? 1e-6 * std::max(1.0, std::abs(apart) / 2) : 1e-6;
      for (size_t entry = 0; entry < losses.size(); ++entry) CHECK_NEAR(losses[entry], problem.loss(entry), error);
    }
  }
}

/// Sums of many equal terms, whose roundings all go the same way.
void test_equal_terms() {
  for (double impossible : {-40.0, -1000.0}) {
    Matrix student(DType::kFloat32, 1, kBlock), teacher(DType::kFloat32, 1, kBlock);
    for (int64_t i = 0; i < kBlock; ++i) {
      student.set(0, i, i % 2 ? 0.3 : -9.7);
      teacher.set(0, i, i % 2 ? impossible : 0.1);
    }
    Problem problem{student, teacher, {0}, {9}, {}, {}, {}};
    problem.temperature = 1;
    for (const CpuKernels* kernels : runnable_cpu_kernels()) {
      context = "equal terms beside " + std::to_string(impossible) + ", " + kernels->instruction_set;
      CHECK_NEAR(OnCpu<float>(*kernels, problem).losses()[0], problem.loss(0), 5e-7 * problem.loss(0));
    }
  }
}

/// A nearly certain row's loss is what is left of two large numbers.
void test_certain_rows() {
  for (double peak : {5.0, 12.0, 30.0, 40.0, 44.0, 60.0}) {
    context = "peak " + std::to_string(peak);
    Matrix logits(DType::kFloat32, 1, 192), other(DType::kFloat32, 1, 192);
    for (int64_t i = 0; i < 192; ++i) logits.set(0, i, i == 50 ? peak : -20);
    for (int64_t i = 0; i < 192; ++i) other.set(0, i, i == 50 ? peak + 0.7 : -20);
    for (const CpuKernels* kernels : runnable_cpu_kernels()) {
      context = "peak " + std::to_string(peak) + ", " + kernels->instruction_set;
      for (int64_t steps : {1, 9}) {
        const Problem problem{logits, other, {50}, {steps}, {}, {}, {}};
        CHECK_NEAR(OnCpu<float>(*kernels, problem).losses()[0], problem.loss(0), 3e-7);
      }
    }
  }
}

/// Rounding to bfloat16 turns none of them into a number.
void test_every_kind_of_nan() {
  constexpr uint16_t kPatterns[] = {0x7f81, 0x7fff, 0xff81, 0xffff, 0x7fc0, 0xffc0};
  const int64_t rows = std::size(kPatterns);
  Matrix logits(DType::kBFloat16, rows, kBlock + 7), other(DType::kBFloat16, rows, kBlock + 7);
  logits.randomize(15);
  other.randomize(16);
  const std::vector<int64_t> near(rows, 1), distant(rows, 9), labels(rows, 3);
  double weight;
  std::memset(&weight, 0x7f, sizeof(weight));
  std::memset(&weight, 0xff, sizeof(weight) - 1);  // a NaN of all bits but its sign
  context = "NaN as a weight";
  check({logits, other, labels, near, {}, {}, std::vector<double>(rows, weight)});
  check({logits, other, labels, distant, {}, {}, std::vector<double>(rows, weight)});
  context = "NaN of every kind";
  const MutableRows view = logits.mutable_view();
  for (int64_t row = 0; row < rows; ++row)
    static_cast<BFloat16*>(view.data)[row * view.row_stride + 11 + row].bits = kPatterns[row];
  check({logits, other, labels, near, {}, {}, {}});
  check({logits, other, labels, distant, {}, {}, {}});
  check({other, logits, labels, distant, {}, {}, {}});
}

void test_infinite_and_missing_values() {
  context = "infinite and missing values";
  Matrix logits(DType::kFloat32, 6, kSeveralSlices), other(DType::kFloat32, 6, kSeveralSlices);
  logits.randomize(5);
  other.randomize(6);
  for (int64_t column = 0; column < kSeveralSlices; ++column) {
    logits.set(0, column, -kInfinity);  // nothing is possible
    if (column < kSlice + 9) logits.set(1, column, -kInfinity);
    if (column >= kSlice - 9) logits.set(2, column, -kInfinity);
    logits.set(5, column, column % 2 ? 1e30 : -1e30);
  }
  logits.set(3, 2 * kSlice + 17, kNaN);
  logits.set(4, 8, kInfinity);
  const std::vector<int64_t> labels = {0, kSlice + 9, 10, 1, 2, 7};
  check({logits, other, labels, std::vector<int64_t>(6, 1), {}, {}, {}});
  check({logits, other, labels, std::vector<int64_t>(6, 9), {}, {}, {}});
  check({other, logits, labels, std::vector<int64_t>(6, 9), {}, {}, {}});

  context = "infinite and missing values without weight";  // no gradient
  const std::vector<int64_t> steps = {1, 1, 1, 9, 9, 9};
  Problem problem{logits, other, labels, steps, {}, {}, std::vector<double>(6, 0)};
  check(problem);
  problem.weights.clear();
  problem.ce_weight = problem.kl_weight = 0;
  check(problem);
}

/// Exactly, wherever their blocks lie.
template <class Real>
void check_equal_rows(const CpuKernels& kernels, const Matrix& logits) {
  const Problem problem{logits, logits, {0, 0, 0, 0}, {9, 9, 9, 9}, {}, {}, {}};
  Matrix gradient(logits.dtype(), 4, kSeveralSlices);
  OnCpu<Real> on_cpu(kernels, problem);
  CHECK(on_cpu.losses(gradient.mutable_view(), 1) == std::vector<double>(4));
  for (int64_t row = 0; row < 4; ++row) CHECK(gradient.row(row) == std::vector<double>(kSeveralSlices));
}

void test_equal_rows_have_no_divergence() {
  for (const CpuKernels* kernels : runnable_cpu_kernels())
    for (DType dtype : kDTypes) {
      context = std::string("student is teacher, ") + name_of(dtype) + ", " + kernels->instruction_set;
      if (dtype == DType::kFloat64)
        check_equal_rows<double>(*kernels, uneven(dtype, 8));
      else
        check_equal_rows<float>(*kernels, uneven(dtype, 8));
    }
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  test_levels();
  test_one_extraordinary_logit();
  test_ordinary_blocks_below_a_peak();
  test_rows_that_stand_apart();
  test_equal_terms();
  test_certain_rows();
  test_every_kind_of_nan();
  test_infinite_and_missing_values();
  test_equal_rows_have_no_divergence();
  return report();
}
