// The CUDA kernel that multiplies a gradient by a number on the device, run on the host: every dtype, any length, any
// boundary, and nothing touched where the number is 1.
#include "runs.h"

namespace {

using namespace tad;
using namespace tad::checks;

constexpr DType kDTypes[] = {DType::kFloat32, DType::kBFloat16, DType::kFloat16, DType::kFloat64};

/// Scales all of a matrix of one row.
void run_scale(Matrix& numbers, double factor) {
  const float factor32 = float(factor);
  const void* by = numbers.dtype() == DType::kFloat64 ? static_cast<const void*>(&factor) : &factor32;
  CHECK(cuda::scale(numbers.mutable_view().data, numbers.columns(), numbers.dtype(), by, nullptr) == 0);
}

void test_factors(DType dtype, int64_t count, int64_t offset) {
  Matrix numbers(dtype, 1, count, 0, offset);
  numbers.randomize(unsigned(count));
  if (count > 2) numbers.set(0, count - 2, kNaN);
  for (double factor : {-2.5, 0.0, 1e-3}) {
    Matrix scaled = numbers;
    run_scale(scaled, factor);
    for (int64_t i = 0; i < count; ++i) {
      const double expected = numbers.get(0, i) * factor;
      CHECK_NEAR(scaled.get(0, i), expected, stored_error(dtype) * std::abs(expected) + subnormal_error(dtype));
    }
    CHECK(scaled.gaps_are_untouched());
  }
}

/// 0xFF bytes are a NaN whose bits no arithmetic keeps.
void test_a_factor_of_1_touches_nothing(DType dtype, int64_t count, int64_t offset) {
  Matrix poison(dtype, 1, count, 0, offset);
  run_scale(poison, 1);
  for (unsigned char byte : poison.bytes()) CHECK(byte == 0xFF);
}

/// A factor of 1 does not even read: there may be nothing.
void test_nothing() {
  const float one = 1, two = 2;
  CHECK(cuda::scale(nullptr, 0, DType::kFloat32, &two, nullptr) == 0);
  CHECK(cuda::scale(nullptr, 100, DType::kFloat32, &one, nullptr) == 0);
}

}  // namespace

int main() {
  cuda_on_host::device.multiprocessors = 1;  // eight blocks, so that some take another round
  for (DType dtype : kDTypes)
    for (int64_t count : {kThreads ? 2053 : 8 * 256 * 8 + 2053, 1, 7, 8, 9, 2051})
      for (int64_t offset : {0, 1}) {
        context = std::string(name_of(dtype)) + ", " + std::to_string(count) + " from " + std::to_string(offset);
        test_factors(dtype, count, offset);
        test_a_factor_of_1_touches_nothing(dtype, count, offset);
        if (kThreads) return report();
      }
  test_nothing();
  return report();
}
