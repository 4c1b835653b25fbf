// The CUDA kernels of the token statistics, run on the host: two best tokens, entropy, samples, on rows of one and of
// several slices, against plain float64 loops.
#include "../token_statistics_problem.h"
#include "runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

void run(const Problem& problem, Results& results) {
  const TokenStatisticsArguments a = results.fill(problem.arguments());
  std::vector<unsigned char> workspace = poisoned<unsigned char>(cuda::token_statistics_workspace(a));
  CHECK(cuda::token_statistics(a, workspace.data(), nullptr) == 0);
}

void check(const Problem& problem) {
  under_every_schedule([&](bool first) {
    Results results(problem.entries);
    run(problem, results);
    if (first)
      for (int64_t entry = 0; entry < problem.entries; ++entry) check_entry(problem, entry, results);
    return results.bytes();
  });
}

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

void test_sizes_and_dtypes() {
  for (int64_t vocabulary : awkward_sizes()) {
    for (int variant = 0; variant < 4; ++variant) {
      const DType dtype = kDTypes[variant];
      context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype);
      Matrix logits(dtype, 3, vocabulary, variant % 3, variant % 2);
      const std::vector<int64_t> suppressed = {vocabulary / 3, vocabulary - 1};
      check({logits.randomize(1), 4, {2, -1, 0, 3}, vocabulary > 7 ? suppressed : std::vector<int64_t>()});
      if (kThreads) return;
    }
  }
}

/// Equal logits in one group, one warp, one block and one row, both for the best and for the second best token.
void test_ties() {
  constexpr int64_t kColumns = 16500;
  const std::vector<std::vector<int64_t>> ties = {{3, 5, 6},    {8, 100, 101},        {255, 256, 2048}, {9, 5000, 8191},
                                                  {8191, 8192}, {8192, 16383, 16384}, {40, 9000, 16499}};
  const int64_t rows = kThreads ? 2 : int64_t(ties.size());
  for (double second : {-1.0, 3.0}) {  // 3 once more: the second best token ties with the others
    context = "ties, another token at " + std::to_string(int(second));
    Matrix logits(DType::kBFloat16, rows, kThreads ? 200 : kColumns);
    logits.randomize(2, 0.5);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t column = 0; column < logits.columns(); ++column)
        if (logits.get(row, column) > 2.5) logits.set(row, column, 2.5);
      for (int64_t token : ties[size_t(row)]) logits.set(row, token, 3);
      if (second == 3) logits.set(row, ties[size_t(row)][0], 4);
    }
    check({logits, rows, {}, {}});
    check({logits, rows, {}, {3, 8, 9, 255, 8191, 8192}});
    if (kThreads) return;
  }
  context = "all logits are equal";
  Matrix flat(DType::kFloat32, 1, 8200);
  flat.set_row(0, std::vector<double>(8200, 1.0));
  check({flat, 1, {}, {}});
  check({flat, 1, {}, {0, 1, 2, 4}});
}

/// One token far above all others, anywhere: what is left for these keeps its digits.
void test_peaks() {
  for (DType dtype : kDTypes)
    for (double temperature : {0.0, 1.5}) {
      if (temperature > 0 && (dtype == DType::kBFloat16 || dtype == DType::kFloat16)) continue;
      context = std::string("peaks, ") + name_of(dtype);
      constexpr int64_t kRows = 7;
      Matrix logits(dtype, kRows, 16500);
      logits.randomize(4);
      for (int64_t row = 0; row < kRows; ++row) logits.set(row, row * row * 400 + row, 12.0 + 8.0 * double(row));
      logits.set(2, 16450, 20);  // of two peaks one higher, one as high
      logits.set(5, 9, 52.0);
      check({logits, kRows, {}, {}, temperature, {1, 2, 3, 4, 5, 6, 7}, std::vector<int64_t>(kRows)});
      check({logits, kRows, {}, {401, 1602}, temperature, {1, 2, 3, 4, 5, 6, 7}, std::vector<int64_t>(kRows)});
    }
}

/// As far below the largest as the CPU looks, wherever that stands between two powers of two.
void test_others_far_below() {
  context = "others far below";
  constexpr int64_t kRows = 8;
  Matrix logits(DType::kFloat32, kRows, 4099);
  for (int64_t row = 0; row < kRows; ++row) {
    logits.set_row(row, std::vector<double>(4099, -kInfinity));
    logits.set(row, 0, double(row) / 8 + 0.01);
    logits.set(row, 2000, double(row) / 8 + 0.01 - 87.25);
    logits.set(row, 4098, double(row) / 8 + 0.01 - 87.25);  // in another slice, where they are small
  }
  check({logits, kRows, {}, {}});
}

/// More slices than lanes merge: the best token in the last one, in the first, or in both.
void test_many_slices() {
  context = "many slices";
  Matrix logits(DType::kBFloat16, 3, 17 * 16384 + 5);
  logits.randomize(8);
  for (int64_t row : {0, 2}) logits.set(row, 17 * 16384 + 3, 30);
  for (int64_t row : {1, 2}) logits.set(row, 40, 30);
  check({logits, 5, {2, -1, 0, 1, 3}, {0, 1}});
}

/// Where float32 does not count powers of two one by one any more.
void test_huge_logits() {
  context = "huge logits";
  Matrix logits(DType::kFloat32, 2, 8212);
  for (int64_t column = 0; column < logits.columns(); ++column)
    for (int64_t row = 0; row < 2; ++row)
      logits.set(row, column, (row ? -2e7 : 2e7) + (column == 99 ? 22 : 2 * double(column * 7 % 11)));
  check({logits, 2, {}, {0, 1}});
}

void test_infinite_and_missing_values() {
  context = "infinite and missing values";
  constexpr int64_t kColumns = 16404;  // in each of two slices
  Matrix logits(DType::kFloat32, 7, kColumns);
  logits.randomize(3);
  for (int64_t column = 0; column < kColumns; ++column) {
    logits.set(0, column, -kInfinity);
    if (column != 16392) logits.set(1, column, -kInfinity);
    if (column < 16384) logits.set(2, column, -kInfinity);
    if (column >= 16384) logits.set(3, column, -kInfinity);
  }
  logits.set(4, 17, kNaN);
  logits.set(5, 16403, kNaN);
  logits.set(6, 8, kInfinity);
  check({logits, 7, {}, {0, 1}});
  check({logits, 7, {}, {}, 0.8, {1, 2, 3, 4, 5, 6, 7}, std::vector<int64_t>(7)});
  context = "nothing is allowed";
  Matrix small(DType::kFloat32, 1, 2);
  Results results(1);
  run({small.randomize(4), 1, {}, {0, 1}}, results);
  CHECK(results.token[0] == 0 && results.second_token[0] == -1 && results.valid[0] == 1 && results.confidence[0] == 0);
}

void test_samples() {
  for (int64_t vocabulary : {7, 515, 16389}) {
    for (DType dtype : kDTypes) {
      context = "samples, V " + std::to_string(vocabulary) + ", " + name_of(dtype);
      Matrix logits(dtype, 4, vocabulary);
      const int64_t step = int64_t(5) << 32;
      const Problem problem{
          logits.randomize(5, 1),
          6,
          {0, 1, 2, 3, -1, 0},
          {0, vocabulary / 2},
          1.5,
          {11, -12, 11, int64_t(13) << 40, 1, 14},
          {step, step | 1, step | 2, step, 0, 2 * step}};
      check(problem);
      if (kThreads) return;
    }
  }
}

void test_a_row_alone() {
  context = "a row alone";
  Matrix logits(DType::kBFloat16, 3, 8195);
  logits.randomize(6);
  Results together(3);
  run({logits, 3, {}, {}}, together);
  for (int64_t row = 0; row < 3; ++row) {
    Results alone(1);
    run({logits, 1, {row}, {}}, alone);
    CHECK(alone.entropy[0] == together.entropy[size_t(row)] && alone.logsumexp[0] == together.logsumexp[size_t(row)]);
    CHECK(alone.confidence[0] == together.confidence[size_t(row)] && alone.margin[0] == together.margin[size_t(row)]);
  }
}

/// Each block asks for the slice of the one that takes its place: of one multiprocessor, which works on five at a time,
/// for all but the first slices of four entries and the second one of the first.
void test_slices_are_prefetched() {
  context = "prefetches";
  constexpr int64_t kColumns = 3 * 16384 + 24;
  const Problem problem{Matrix(DType::kBFloat16, 3, kColumns).randomize(9), 4, {2, 0, -1, 1}, {}};
  const auto* begin = static_cast<const unsigned char*>(problem.logits.view().data);
  std::vector<int> asked(size_t(3 * kColumns * 2));
  cuda_on_host::when_prefetched = [&](const void* global, size_t bytes) {
    const auto first = static_cast<const unsigned char*>(global) - begin;
    const bool inside = first >= 0 && first + int64_t(bytes) <= int64_t(asked.size());
    CHECK(inside);
    for (int64_t i = first; inside && i < first + int64_t(bytes); ++i) ++asked[size_t(i)];
  };
  const auto device = cuda_on_host::device;
  cuda_on_host::device.multiprocessors = 1;
  Results results(problem.entries);
  run(problem, results);
  cuda_on_host::device = device;
  cuda_on_host::when_prefetched = nullptr;
  const auto slice = std::find(asked.begin(), asked.end(), 1) - asked.begin();  // in bytes
  CHECK(slice > 0 && slice % 8192 == 0);
  bool each_once = true;
  for (int64_t i = 0; i < int64_t(asked.size()); ++i) {
    const int64_t row = i / (kColumns * 2), first = row == 2 ? 2 * slice : slice;
    each_once = each_once && asked[size_t(i)] == int(i % (kColumns * 2) >= first);
  }
  CHECK(each_once);
}

void test_rows_far_apart() {
  context = "rows far apart";
  Problem problem{Matrix(DType::kBFloat16, DistantRows::kRows, 20), DistantRows::kRows, {}, {}};
  problem.logits.randomize(7);
  DistantRows far(20);
  far.copy_from(problem.logits);
  Results results(problem.entries);
  TokenStatisticsArguments a = results.fill(problem.arguments());
  a.logits = far.view();
  std::vector<unsigned char> workspace = poisoned<unsigned char>(cuda::token_statistics_workspace(a));
  CHECK(cuda::token_statistics(a, workspace.data(), nullptr) == 0);
  for (int64_t entry = 0; entry < problem.entries; ++entry) check_entry(problem, entry, results);
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  test_ties();
  test_samples();
  if (kThreads) return report();
  test_peaks();
  test_others_far_below();
  test_many_slices();
  test_huge_logits();
  test_infinite_and_missing_values();
  test_a_row_alone();
  test_slices_are_prefetched();
  test_rows_far_apart();
  return report();
}
