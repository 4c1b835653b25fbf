// Tests of the exponential that stands for a GPU's: how far it is off, and where it must not be.
#include <set>

#include "../tests/check.h"
#include "exponential.h"

namespace {

using cuda_on_host::exp2_off;
using cuda_on_host::exp2_rounded;

void test_errors() {
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
  test_errors();
  test_below_the_normal_numbers();
  test_exact_values();
  return tad::checks::report();
}
