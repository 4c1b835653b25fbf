// The CPU kernels of the token statistics, of every instruction set that this processor has, slice by slice, against
// plain float64 loops.
#include "../../common/statistics.h"
#include "../../cpu/kernels.h"
#include "../token_statistics_problem.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};
constexpr int64_t kSeveralSlices = 2 * kSlice + kBlock + 13;

template <class Real>
void run_on_cpu(const KernelsOf<Real>& kernels, const TokenStatisticsArguments& a, bool in_order) {
  std::vector<SliceStatistics> found(size_t(slices_of(a.vocabulary)));
  for (int64_t entry = 0; entry < a.entries; ++entry) {
    if (a.rows && (a.rows[entry] < 0 || a.rows[entry] >= a.logits.row_count)) {
      portable::write_empty_statistics(a, entry);
      continue;
    }
    for (size_t i = 0; i < found.size(); ++i) {
      const size_t slice = in_order ? i : found.size() - 1 - i;
      const SliceStatistics* before = in_order && slice > 0 ? &found[slice - 1] : nullptr;
      kernels.slice_statistics(a, entry, int64_t(slice), before, &found[slice]);
    }
    kernels.token_statistics(a, entry, found.data());
  }
}

void run_on_cpu(const CpuKernels& kernels, const Problem& problem, bool in_order, Results& results) {
  const TokenStatisticsArguments a = results.fill(problem.arguments());
  if (problem.logits.dtype() == DType::kFloat64)
    run_on_cpu(kernels.float64, a, in_order);
  else
    run_on_cpu(kernels.float32, a, in_order);
}

void check(const Problem& problem) {
  const std::string outer = context;
  for (const CpuKernels* kernels : runnable_cpu_kernels())
    for (bool in_order : {false, true}) {
      context = outer + ", " + kernels->instruction_set + (in_order ? ", slices in order" : "");
      Results results(problem.entries);
      run_on_cpu(*kernels, problem, in_order, results);
      for (int64_t entry = 0; entry < problem.entries; ++entry) check_entry(problem, entry, results);
    }
  context = outer;
}

void test_sizes_and_dtypes() {
  for (int64_t vocabulary : {int64_t(1), int64_t(7), kBlock + 1, kSlice, kSlice + 1, kSeveralSlices})
    for (DType dtype : kDTypes)
      for (double temperature : {0.0, 1.5}) {
        context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype);
        Matrix logits(dtype, 2, vocabulary, 3, 1);
        const std::vector<int64_t> suppressed = {vocabulary / 3, vocabulary - 1};
        check(
            {logits.randomize(1),
             3,
             {1, -1, 0},
             vocabulary > 2 ? suppressed : std::vector<int64_t>(),
             temperature,
             {11, -12, int64_t(13) << 40},
             {int64_t(5) << 32, 1, 2}});
      }
}

/// Equal logits in one block, in two blocks and in two slices; the lowest token wins.
void test_ties() {
  context = "ties";
  const std::vector<std::vector<int64_t>> ties = {
      {3, 5}, {1000, kBlock, 5000}, {kSlice - 1, kSlice}, {9, 2 * kSlice, 2 * kSlice + 600}};
  Matrix logits(DType::kBFloat16, 4, kSeveralSlices);
  logits.randomize(2, 0.5);
  for (int64_t row = 0; row < 4; ++row)
    for (int64_t token : ties[size_t(row)]) logits.set(row, token, 9);
  check({logits, 4, {}, {}});
  check({logits, 4, {}, {3, 1000, kSlice - 1}});
}

void test_levels_and_infinite_values() {
  context = "levels and infinite values";
  Matrix logits(DType::kFloat32, 6, kSeveralSlices);
  logits.randomize(3);
  for (int64_t column = 0; column < kSeveralSlices; ++column) {
    const int64_t block = column / kBlock;
    logits.set(0, column, logits.get(0, column) + 60.0 * double(block) - 900);
    logits.set(1, column, logits.get(1, column) - (block % 3 == 0 ? kInfinity : 400));
    logits.set(2, column, logits.get(2, column) - 60.0 * double(block));
    logits.set(3, column, -kInfinity);
  }
  logits.set(4, kSlice + 17, kNaN);
  logits.set(5, 8, kInfinity);
  check({logits, 6, {}, {0, 1}});
}

/// One token far above all others, anywhere: what is left for these keeps its digits.
void test_peaks() {
  for (DType dtype : kDTypes)
    for (double temperature : {0.0, 1.5}) {
      context = std::string("peaks, ") + name_of(dtype);
      constexpr int64_t kRows = 7;
      Matrix logits(dtype, kRows, kSeveralSlices);
      logits.randomize(4);
      for (int64_t row = 0; row < kRows; ++row) logits.set(row, row * row * 700 + row, 12.0 + 8.0 * double(row));
      logits.set(2, 2 * kSlice, 20);  // of two peaks one higher, one as high
      logits.set(5, 9, 52.0);
      check({logits, kRows, {}, {}, temperature, {1, 2, 3, 4, 5, 6, 7}, std::vector<int64_t>(kRows)});
      check({logits, kRows, {}, {1403, 2803}, temperature, {1, 2, 3, 4, 5, 6, 7}, std::vector<int64_t>(kRows)});
    }
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  test_ties();
  test_levels_and_infinite_values();
  test_peaks();
  return report();
}
