// The CPU kernels of log softmax and its gradient, of every instruction set that this processor has, slice by slice,
// against float64 formulas.
#include "../../cpu/kernels.h"
#include "../log_softmax_problem.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};
constexpr int64_t kSeveralSlices = 2 * kSlice + kBlock + 13;

template <class Real>
void check_problem(const KernelsOf<Real>& kernels, const Problem& problem, DType out_dtype) {
  const LogSoftmaxArguments a = problem.arguments();
  const int64_t slices = slices_of(a.vocabulary);
  Matrix out(out_dtype, a.entries, a.vocabulary, 3, 1);
  Matrix gradient(problem.logits.dtype(), a.logits.row_count, a.vocabulary, 3, 1);
  std::vector<Real> normalizers = poisoned<Real>(2 * a.entries);
  std::vector<bool> written(size_t(a.logits.row_count));
  for (int64_t entry = 0; entry < a.entries; ++entry) {
    Real* normalizer = &normalizers[size_t(2 * entry)];
    std::vector<SliceSums> sums(static_cast<size_t>(slices));
    for (int64_t slice = slices; slice-- > 0;) kernels.softmax_sums(a, entry, slice, &sums[size_t(slice)]);
    kernels.softmax_normalizer(a, sums.data(), normalizer);
    for (int64_t slice = slices; slice-- > 0;) kernels.log_softmax(a, entry, slice, normalizer, out.mutable_view());

    const Rows grad_out = problem.grad_out.view();
    const int64_t row = problem.row(entry);
    double total = 0;
    for (int64_t slice = 0; slice < slices; ++slice) total += kernels.gradient_sum(a, entry, slice, grad_out);
    for (int64_t slice = slices; slice-- > 0;)
      kernels.log_softmax_gradient(
          a, entry, slice, normalizer, grad_out, total, gradient.mutable_view(), row, written[size_t(row)]);
    written[size_t(row)] = true;
  }
  check_forward(problem, out, normalizers);
  check_gradient(problem, gradient);
}

void check(const Problem& problem, DType out_dtype) {
  const std::string outer = context;
  for (const CpuKernels* kernels : runnable_cpu_kernels()) {
    context = outer + ", " + kernels->instruction_set;
    if (problem.logits.dtype() == DType::kFloat64)
      check_problem(kernels->float64, problem, out_dtype);
    else
      check_problem(kernels->float32, problem, out_dtype);
  }
  context = outer;
}

/// Row 1 is named twice.
void test_sizes_and_dtypes() {
  for (int64_t vocabulary : {int64_t(1), int64_t(15), kBlock + 1, kSlice, kSlice + 1, kSeveralSlices})
    for (int variant = 0; variant < 8; ++variant) {
      const DType dtype = kDTypes[variant % 4], other = kDTypes[variant < 4 ? variant : (variant + 1) % 4];
      context = "V " + std::to_string(vocabulary) + ", " + name_of(dtype) + " to " + name_of(other);
      Matrix logits(dtype, 2, vocabulary, variant % 3, variant % 2), grad_out(other, 3, vocabulary, variant % 2);
      check({logits.randomize(1), grad_out.randomize(2, 1), {1, 0, 1}, variant % 3 ? 0.7 : 1.0}, other);
    }
}

/// Rows whose blocks lie hundreds apart, and rows with numbers that are none.
void test_levels_and_infinite_values(DType dtype) {
  context = std::string("levels and infinite values, ") + name_of(dtype);
  Matrix logits(dtype, 6, kSeveralSlices), grad_out(dtype, 6, kSeveralSlices);
  logits.randomize(3);
  grad_out.randomize(4);
  for (int64_t column = 0; column < kSeveralSlices; ++column) {
    const int64_t block = column / kBlock;
    logits.set(0, column, logits.get(0, column) + 60.0 * double(block) - 900);
    logits.set(1, column, logits.get(1, column) - (block % 3 == 0 ? kInfinity : 400));
    logits.set(2, column, logits.get(2, column) - 60.0 * double(block));
    logits.set(3, column, -kInfinity);
  }
  logits.set(4, kSlice + 17, kNaN);
  logits.set(5, 8, kInfinity);
  check({logits, grad_out, {}}, dtype);
}

}  // namespace

int main() {
  test_sizes_and_dtypes();
  for (DType dtype : {DType::kFloat32, DType::kBFloat16}) test_levels_and_infinite_values(dtype);
  return report();
}
