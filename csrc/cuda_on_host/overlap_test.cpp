// Tests of launches that overlap (runtime.h): a kernel that begins early finds nothing of what the one before it writes
// until it waits, and must wait.
#include <cstdio>
#include <cstdlib>

#include "../tests/check.h"
#include "death.h"
#include "language.h"

namespace {

using namespace cuda_on_host;

__global__ void add_one(const int* from, int* to, int* before) {
  if (threadIdx.x != 0) return;
  let_next_kernel_begin();
  *before = *from;
  wait_for_kernel_before();
  *to = *from + 1;
}

__global__ void never_waits(int* to) {
  if (threadIdx.x == 0) *to = 9;
}

constexpr Overlap kFirst{.lets_next_begin = true}, kMiddle{true, true}, kLast{.begins_early = true};

void launch_add(Overlap overlap, int* from, int* to, int* before) {
  launch_overlapping(overlap, add_one, 2, 32, 1, 0, nullptr, from, to, before);
}

void test_three_in_a_row() {
  for (Schedule schedule : kSchedules) {
    set_schedule(schedule);
    int numbers[4] = {1, 0, 0, 0}, before[3] = {-1, -1, -1};
    launch_add(kFirst, numbers, numbers + 1, before);
    CHECK(numbers[1] == 0);  // not yet
    launch_add(kMiddle, numbers + 1, numbers + 2, before + 1);
    launch_add(kLast, numbers + 2, numbers + 3, before + 2);
    CHECK(numbers[1] == 2 && numbers[2] == 3 && numbers[3] == 4);
  }
}

void test_an_ordinary_launch_waits() {
  int numbers[3] = {1, 0, 0}, before[2] = {};
  launch_add(kFirst, numbers, numbers + 1, before);
  launch_add({}, numbers + 1, numbers + 2, before + 1);
  CHECK(before[1] == 2 && numbers[2] == 3);
}

void test_a_launch_that_is_refused_comes_after_it() {
  int numbers[2] = {1, 0}, before = 0;
  launch_add(kFirst, numbers, numbers + 1, &before);
  launch_overlapping(kLast, never_waits, 1, 2048, 1, 0, nullptr, numbers);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration && numbers[1] == 2);
  launch_add(kFirst, numbers + 1, numbers, &before);
  CHECK(cudaFuncSetAttribute(never_waits, cudaFuncAttributeMaxDynamicSharedMemorySize, -1) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue && numbers[0] == 3);
}

void test_a_kernel_that_does_not_wait_dies() {
  CHECK(dies(
      [] {
        int numbers[2] = {}, before = 0, other = 0;
        launch_add(kFirst, numbers, numbers + 1, &before);
        launch_overlapping(kLast, never_waits, 1, 32, 1, 0, nullptr, &other);
      },
      {"cuda_on_host: a kernel ended before the one before it"}));
}

// The first of the threads that waits makes the one before run; what was read before that is old.
void test_what_is_read_early_is_old() {
  int numbers[3] = {1, 0, 0}, before[2] = {-1, -1};
  set_schedule({});
  launch_overlapping(kFirst, add_one, 1, 32, 1, 0, nullptr, numbers, numbers + 1, before);
  launch_overlapping(kLast, add_one, 1, 32, 1, 0, nullptr, numbers + 1, numbers + 2, before + 1);
  CHECK(before[0] == 1 && before[1] == 0 && numbers[2] == 3);
}

}  // namespace

int main() {
  test_three_in_a_row();
  test_an_ordinary_launch_waits();
  test_a_launch_that_is_refused_comes_after_it();
  test_a_kernel_that_does_not_wait_dies();
  test_what_is_read_early_is_old();
  return tad::checks::report();
}
