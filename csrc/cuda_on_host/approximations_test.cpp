// Tests of what stands for a GPU's approximate instructions: how far they are off, and where they must not be.
#include <algorithm>
#include <set>

#include "../tests/check.h"
#include "approximations.h"

namespace {

using cuda_on_host::exp2_off;
using cuda_on_host::exp2_rounded;
using cuda_on_host::log2_off;
using cuda_on_host::quotient_off;

void test_errors_of_logarithms_and_quotients() {
  double near_one = 0, elsewhere = 0;
  std::set<int> ulps;
  for (int i = 1; i < 20000; ++i) {
    const float x = float(i) / 1000;
    const double logarithm = std::log2(double(x)), error = std::abs(double(log2_off(x)) - logarithm);
    double& largest = x > 0.5f && x < 2 ? near_one : elsewhere;
    largest = std::max(largest, x > 0.5f && x < 2 ? error : error / std::abs(logarithm));
    const auto bits = [](float y) { return std::bit_cast<int32_t>(y); };
    ulps.insert(bits(quotient_off(3, x)) - bits(3 / x));
  }
  CHECK(near_one > 0x1p-24 && near_one < 0x1p-21 && elsewhere > 0x1p-24 && elsewhere < 0x1p-21);
  CHECK(*ulps.begin() == -2 && *ulps.rbegin() == 2 && ulps.size() == 5);
  CHECK(log2_off(0) == -INFINITY && std::isnan(log2_off(-1)) && log2_off(INFINITY) == INFINITY);
  CHECK(quotient_off(0, 3) == 0 && std::isnan(quotient_off(0, 0)) && quotient_off(1, 0) == INFINITY);
}

void test_errors_of_powers() {
  std::set<int> ulps;
  for (int i = -125999; i < 128000; ++i) {
    const float y = float(i) / 1000;
    const auto bits = [](float x) { return std::bit_cast<int32_t>(x); };
    ulps.insert(bits(exp2_off(y)) - bits(float(std::exp2(double(y)))));
  }
  CHECK(*ulps.begin() == -2 && *ulps.rbegin() == 2 && ulps.size() == 5);
}

void test_below_the_normal_numbers() {
  CHECK(exp2_rounded(-126) == 0x1p-126f && exp2_off(-126) == 0);  // this one is off downwards
  for (float y : {-126.0001f, -140.f, -1e30f, -INFINITY}) CHECK(exp2_rounded(y) == 0 && exp2_off(y) == 0);
}

void test_exact_values() {
  for (float y : {0.f, -0.f, 1e-40f, -1e-40f}) CHECK(exp2_off(y) == 1);
  CHECK(exp2_off(128) == INFINITY && exp2_off(INFINITY) == INFINITY);
  CHECK(std::isnan(exp2_off(NAN)));
}

}  // namespace

int main() {
  test_errors_of_powers();
  test_below_the_normal_numbers();
  test_exact_values();
  test_errors_of_logarithms_and_quotients();
  return tad::checks::report();
}
