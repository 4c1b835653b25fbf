// The exponentials of every instruction set, as a near row's sums leave them for its gradient: close to exact.
#include <cmath>
#include <string>
#include <vector>

#include "../../cpu/exponential.h"
#include "../../cpu/kernels.h"
#include "../matrix.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr double kFloat32Ulp = 0x1p-23;

/// Exponentials of one block of float32 logits, relative to the reference that is returned.
float exponentials(const CpuKernels& kernels, const std::vector<float>& logits, std::vector<float>& result) {
  const int64_t near = 1, label = 0;
  TadLossArguments a{};
  a.student = {logits.data(), kBlock, DType::kFloat32, 1};
  a.vocabulary = kBlock;
  a.entries = 1;
  a.labels = &label;
  a.steps = &near;
  a.delta = 1;
  float student_reference = NAN, teacher_reference = NAN;
  result.assign(2 * kBlock, NAN);
  const Exponentials<float> kept{result.data(), result.data() + kBlock, &student_reference, &teacher_reference};
  SliceSums sums;
  kernels.float32.tad_sums(a, 0, 0, &kept, &sums);
  return student_reference;
}

/// From `lowest` in steps of `step`: all exact in float32, like their differences.
std::vector<float> ladder(double lowest, double step) {
  std::vector<float> logits(kBlock);
  for (int64_t i = 0; i < kBlock; ++i) logits[i] = float(lowest + double(i) * step);
  return logits;
}

/// Near exp(b * (logit - reference)), b being what float32 makes of log2(e).
void check_exponentials(const CpuKernels& kernels, const std::vector<float>& logits, double reference, double error) {
  std::vector<float> kept;
  CHECK(exponentials(kernels, logits, kept) == reference);
  const double b = double(float(portable::kLog2E)) / portable::kLog2E;
  for (int64_t i = 0; i < kBlock; ++i) {
    const double exact = std::exp(b * (double(logits[i]) - reference));
    CHECK_NEAR(kept[i], exact, exact < 0x1p-125 ? 0x1p-125 : error * exact);
    if (double(logits[i]) == reference) CHECK(kept[i] == 1);
    if (std::isinf(logits[i])) CHECK(kept[i] == 0);
  }
}

void test_every_instruction_set() {
  for (const CpuKernels* kernels : runnable_cpu_kernels()) {
    // Without fused multiply-adds x * scale is rounded.
    const bool fused = std::string(kernels->instruction_set) != "portable" || portable::kOrdinaryPower == 64;
    context = std::string("ordinary logits, ") + kernels->instruction_set;
    check_exponentials(*kernels, ladder(-11, 1.0 / 128), 0, fused ? 1.5 * kFloat32Ulp : 9 * kFloat32Ulp);
    if (fused) check_exponentials(*kernels, ladder(-44, 7.0 / 128), 0, 1.5 * kFloat32Ulp);
    context = std::string("far logits, ") + kernels->instruction_set;
    std::vector<float> far = ladder(300, 1.0 / 8);
    check_exponentials(*kernels, far, far.back(), fused ? 1.5 * kFloat32Ulp : 65 * kFloat32Ulp);
    far = ladder(60, 1.0 / 512);
    far[5] = far[kBlock - 3] = -INFINITY;
    check_exponentials(*kernels, far, far.back(), fused ? 1.5 * kFloat32Ulp : 9 * kFloat32Ulp);
    context = std::string("where normal numbers end, ") + kernels->instruction_set;
    far = ladder(100 - 89, 1.0 / 512);
    far.back() = 100;
    check_exponentials(*kernels, far, far.back(), fused ? 1.5 * kFloat32Ulp : 65 * kFloat32Ulp);
    context = std::string("a NaN, ") + kernels->instruction_set;
    far[7] = NAN;
    std::vector<float> kept;
    exponentials(*kernels, far, kept);
    CHECK(std::isnan(kept[7]));
  }
}

}  // namespace

int main() {
  test_every_instruction_set();
  return report();
}
