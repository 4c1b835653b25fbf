// The CPU kernels of truncate_logits, of every instruction set that this processor has, against float64 and a sort.
#include "../../cpu/kernels.h"
#include "../truncation_problem.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

template <class Real>
void run_on_cpu(const KernelsOf<Real>& kernels, const Problem& problem, Matrix& out) {
  const TruncationArguments a = problem.arguments(out.mutable_view());
  std::vector<Real> workspace = poisoned<Real>((a.vocabulary + kBlock - 1) / kBlock * kBlock);
  for (int64_t row = 0; row < a.logits.row_count; ++row) kernels.truncate_logits(a, row, workspace.data());
}

void run_on_cpu(const CpuKernels& kernels, const Problem& problem, Matrix& out) {
  if (problem.logits.dtype() == DType::kFloat64)
    run_on_cpu(kernels.float64, problem, out);
  else
    run_on_cpu(kernels.float32, problem, out);
}

/// With rows of the result `gap` elements apart.
void check(const Problem& problem, int64_t gap = 0) {
  const std::string outer = context;
  context += ", top_k " + std::to_string(problem.top_k) + ", top_p " + std::to_string(problem.top_p);
  const std::string setting = context;
  for (const CpuKernels* kernels : runnable_cpu_kernels()) {
    context = setting + ", " + kernels->instruction_set;
    Matrix out(problem.logits.dtype(), problem.logits.view().row_count, problem.logits.columns(), gap, gap);
    run_on_cpu(*kernels, problem, out);
    check_truncated(problem, out);
  }
  context = outer;
}

void test_sizes_and_dtypes() {
  for (int64_t vocabulary : {int64_t(1), int64_t(2), int64_t(15), kBlock, kBlock + 1, kSlice + kBlock + 13})
    for (DType dtype : kDTypes)
      for (double scale : {0.1, 4.0, 30.0}) {
        context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype) + ", scale " + std::to_string(scale);
        Matrix logits(dtype, 2, vocabulary, vocabulary % 3, vocabulary % 2);
        logits.randomize(1, scale);
        for (const Setting& setting : settings_for(vocabulary))
          check({logits, setting.top_k, setting.top_p, scale > 4 ? 0.7 : 1.3}, vocabulary % 2 * 3);
      }
}

void test_infinite_and_missing_values() {
  for (DType dtype : kDTypes) {
    context = std::string("infinite and missing values, ") + name_of(dtype);
    const Matrix logits = rows_with_infinite_and_missing_values(dtype, kBlock + 20);
    for (const Setting& setting : settings_for(logits.columns())) check({logits, setting.top_k, setting.top_p});
    check({logits, 2, 0.9});
  }
}

void test_by_hand() {
  for (const CpuKernels* kernels : runnable_cpu_kernels()) {
    const auto run = [&](const Problem& problem, Matrix& out) { run_on_cpu(*kernels, problem, out); };
    for (DType dtype : {DType::kFloat32, DType::kFloat64}) check_by_hand(dtype, run);
    for (DType dtype : kDTypes) check_neighbours(dtype, run);
  }
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  test_infinite_and_missing_values();
  test_by_hand();
  return report();
}
