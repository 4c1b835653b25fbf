// Tests of the emulation that the CUDA kernels' own source runs on (language.h): what correct kernels compute,
// under every schedule, and what the runtime says of launches. checks_test.cpp has the broken kernels.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "../tests/check.h"
#include "language.h"

namespace {

using cuda_on_host::dynamic_shared_memory;
using cuda_on_host::kSchedules;
using cuda_on_host::launch;
using cuda_on_host::set_schedule;

#if defined(TAD_CUDA_ON_HOST_THREADS)
constexpr unsigned kManyThreads = 128;
#else
constexpr unsigned kManyThreads = 1024;
#endif

// ---- correct kernels ----------------------------------------------------------------------------------------------

__device__ __forceinline__ float warp_sum(float x) {
  for (int offset = warpSize / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// Sums of the rows of x. The second barrier keeps the partial sums of one row from those of the next.
__global__ void __launch_bounds__(1024) row_sums(const float* x, float* sums, int rows, int columns) {
  float* partial = static_cast<float*>(dynamic_shared_memory());
  for (int row = blockIdx.x; row < rows; row += gridDim.x) {
    float sum = 0;
    for (int c = threadIdx.x; c < columns; c += blockDim.x) sum += __ldg(x + row * columns + c);
    sum = warp_sum(sum);
    if (threadIdx.x % warpSize == 0) partial[threadIdx.x / warpSize] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
      sums[row] = 0;
      for (unsigned warp = 0; warp < blockDim.x / warpSize; ++warp) sums[row] += partial[warp];
    }
    __syncthreads();
  }
}

bool row_sums_are_right(unsigned threads) {
  constexpr int kRows = 5, kColumns = 700;
  std::vector<float> x(kRows * kColumns), sums(kRows);
  std::iota(x.begin(), x.end(), 0.f);
  launch(row_sums, 2, threads, threads / 8, nullptr, x.data(), sums.data(), kRows, kColumns);
  bool right = true;
  for (int row = 0; row < kRows; ++row) {
    const double expected = kColumns * (row * kColumns + (kColumns - 1) / 2.0);
    right &= std::abs(sums[row] - expected) <= 1e-6 * expected;
  }
  return right;
}

void test_block_reduction() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    for (unsigned threads : {32u, 96u, kManyThreads}) CHECK(row_sums_are_right(threads));
  }
}

struct Lanes {
  int shfl, wrapped, segment, butterfly, butterfly8, down, down8;
  bool operator==(const Lanes&) const = default;
};
struct Large {
  double value[4];
};

__global__ void shuffle_lanes(Lanes* lanes, double* sums) {
  const int lane = threadIdx.x % 32, value = threadIdx.x;
  lanes[threadIdx.x] = {__shfl_sync(~0u, value, 5),        __shfl_sync(~0u, value, lane + 1),
                        __shfl_sync(~0u, value, 9, 8),     __shfl_xor_sync(~0u, value, 3),
                        __shfl_xor_sync(~0u, value, 8, 8), __shfl_down_sync(~0u, value, 2),
                        __shfl_down_sync(~0u, value, 2, 8)};
  const Large large = __shfl_sync(~0u, Large{{1.0 * value, 2.0 * value, 3.0 * value, 4.0 * value}}, 7);
  sums[threadIdx.x] = large.value[0] + large.value[1] + large.value[2] + large.value[3];
}

void test_shuffles() {
  for (cuda_on_host::Schedule schedule : kSchedules) {
    set_schedule(schedule);
    std::vector<Lanes> lanes(64);
    std::vector<double> sums(64);
    launch(shuffle_lanes, 1, 64, 0, nullptr, lanes.data(), sums.data());
    for (int thread = 0; thread < 64; ++thread) {
      const int warp = thread & 32, lane = thread & 31, segment = thread & ~7;
      const Lanes expected = {
          warp + 5,
          warp + (lane + 1) % 32,
          segment + 1,
          thread ^ 3,
          lane & 8 ? thread - 8 : thread,  // an earlier segment can be read, a later one cannot
          lane < 30 ? thread + 2 : thread,
          thread % 8 < 6 ? thread + 2 : thread};
      CHECK(lanes[thread] == expected);
      CHECK(sums[thread] == 10.0 * (warp + 7));
    }
  }
}

__global__ void partial_warp(int* from_16, unsigned* ballots) {
  from_16[threadIdx.x] = __shfl_sync(~0u, int(threadIdx.x), 16);
  ballots[threadIdx.x] = __ballot_sync(~0u, 1);
}

// A block of 48 threads: lanes 16 to 31 of its second warp do not exist. They do not vote, and their values are
// undefined.
void test_partial_warp() {
  std::vector<int> from_16(48);
  std::vector<unsigned> ballots(48);
  launch(partial_warp, 1, 48, 0, nullptr, from_16.data(), ballots.data());
  for (int thread = 0; thread < 48; ++thread) {
    CHECK(from_16[thread] == (thread < 32 ? 16 : -1));
    CHECK(ballots[thread] == (thread < 32 ? 0xffffffffu : 0xffffu));
  }
}

__global__ void votes(unsigned* out) {
  const int odd = threadIdx.x % 2 * 4;  // every non-zero predicate is true
  const bool first_warp = threadIdx.x < 32;
  out[4 * threadIdx.x] = __ballot_sync(~0u, odd);
  out[4 * threadIdx.x + 1] = __any_sync(~0u, first_warp && odd);
  out[4 * threadIdx.x + 2] = __all_sync(~0u, odd);
  out[4 * threadIdx.x + 3] = __all_sync(~0u, first_warp);
}

void test_votes() {
  std::vector<unsigned> out(4 * 64);
  launch(votes, 1, 64, 0, nullptr, out.data());
  for (unsigned thread = 0; thread < 64; ++thread) {
    CHECK(out[4 * thread] == 0xaaaaaaaau && out[4 * thread + 2] == 0);
    CHECK(out[4 * thread + 1] == (thread < 32) && out[4 * thread + 3] == (thread < 32));
  }
}

__global__ void fill_shared(size_t bytes, int* wrong) {
  unsigned char* shared = static_cast<unsigned char*>(dynamic_shared_memory());
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0) ++*wrong;
  for (size_t i = 0; i < bytes; ++i) {
    if (shared[i] != 0xFF) ++*wrong;
    shared[i] = 0;
  }
}

void test_shared_memory_is_poisoned() {
  for (size_t bytes : {size_t(0), size_t(1), size_t(100), size_t(48 << 10)}) {
    int wrong = 0;
    launch(fill_shared, 3, 1, bytes, nullptr, bytes, &wrong);
    CHECK(wrong == 0 && cudaGetLastError() == cudaSuccess);
  }
}

__global__ void mark(bool* ran) {
  *ran = true;
}
__global__ void mark_too(bool* ran) {
  *ran = true;
}

void test_error_codes() {
  const auto run = [](void (*kernel)(bool*), dim3 grid, dim3 block, size_t shared_bytes) {
    bool ran = false;
    launch(kernel, grid, block, shared_bytes, nullptr, &ran);
    const cudaError_t error = cudaPeekAtLastError();
    CHECK(cudaGetLastError() == error && cudaGetLastError() == cudaSuccess);  // reading the error clears it
    CHECK(ran == (error == cudaSuccess));
    return error;
  };
  CHECK(run(mark, 1, 1, 0) == cudaSuccess);
  for (dim3 grid : {dim3(0), dim3(1, 0), dim3(1, 1, 0), dim3(1u << 31), dim3(1, 65536), dim3(1, 1, 65536)})
    CHECK(run(mark, grid, 1, 0) == cudaErrorInvalidConfiguration);
  for (dim3 block : {dim3(0), dim3(1025), dim3(1, 1025), dim3(1, 1, 65), dim3(32, 33), dim3(1024, 1024, 64)})
    CHECK(run(mark, 1, block, 0) == cudaErrorInvalidConfiguration);

  CHECK(run(mark, 1, 1, 48 << 10) == cudaSuccess);
  CHECK(run(mark, 1, 1, (48 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(mark, cudaFuncAttributeMaxDynamicSharedMemorySize, 227 << 10) == cudaSuccess);
  CHECK(run(mark, 1, 1, 227 << 10) == cudaSuccess);
  CHECK(run(mark, 1, 1, (227 << 10) + 1) == cudaErrorInvalidValue);
  CHECK(run(mark_too, 1, 1, (48 << 10) + 1) == cudaErrorInvalidValue);  // each kernel asks for itself
  for (int bytes : {(227 << 10) + 1, -1}) {
    CHECK(cudaFuncSetAttribute(mark, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) == cudaErrorInvalidValue);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  }
  CHECK(!std::strcmp(cudaGetErrorString(cudaErrorInvalidConfiguration), "invalid configuration argument"));
}

__global__ void count_indices(int* counts, bool* shapes) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  ++counts[block * blockDim.x * blockDim.y * blockDim.z + thread];
  if (thread == 0 && block == 0)
    *shapes = gridDim.x == 2 && gridDim.y == 4 && gridDim.z == 3 && blockDim.x == 4 && blockDim.y == 2 &&
              blockDim.z == 3 && warpSize == 32;
}

void test_three_dimensions() {
  std::vector<int> counts(24 * 24);
  bool shapes = false;
  launch(count_indices, dim3(2, 4, 3), dim3(4, 2, 3), 0, nullptr, counts.data(), &shapes);
  for (int count : counts) CHECK(count == 1);
  CHECK(shapes);
}

struct Arguments {
  int values[3];
  int* out;
};

__global__ void spend_arguments(Arguments arguments, int step, const float* nothing) {
  if (nothing != nullptr) return;
  for (int& value : arguments.values) value += step--;
  arguments.out[threadIdx.x] = arguments.values[0] + 10 * arguments.values[1] + 100 * arguments.values[2];
}

void test_arguments_are_copied() {
  std::vector<int> out(64);
  const Arguments arguments{{1, 2, 3}, out.data()};
  launch(spend_arguments, 1, 64, 0, nullptr, arguments, 3, nullptr);
  for (int value : out) CHECK(value == 4 + 10 * 4 + 100 * 4);
  CHECK(arguments.values[0] == 1);
}

__global__ void bit_casts(bool* right) {
  *right = __float_as_uint(-2.f) == 0xc0000000u && __float_as_int(1.f) == 0x3f800000 &&
           __uint_as_float(0x7f800000u) == INFINITY && __int_as_float(int(0xff800000)) == -INFINITY &&
           __double_as_longlong(1.0) == 0x3ff0000000000000 && __longlong_as_double(0x4000000000000000) == 2.0 &&
           rsqrtf(4.f) == 0.5f && exp2f(3.f) == 8.f;
}

void test_device_functions() {
  bool right = false;
  launch(bit_casts, 1, 1, 0, nullptr, &right);
  CHECK(right);
  static_assert(alignof(uint2) == 8 && alignof(uint4) == 16 && alignof(int4) == 16 && alignof(float4) == 16);
  static_assert(sizeof(uint2) == 8 && sizeof(uint4) == 16 && sizeof(int4) == 16 && sizeof(float4) == 16);
}

// Goes on when another launch is in the middle too.
__global__ void meet_other_launch(std::atomic<int>* launches, unsigned* sizes) {
  if (threadIdx.x == 5)
    for (++*launches; *launches < 2;) std::this_thread::yield();
  __syncthreads();
  sizes[threadIdx.x] = blockDim.x;
}

// Launches of several OS threads know nothing of each other.
void test_concurrent_launches() {
  std::atomic<int> launches = 0;
  std::vector<unsigned> small(32), large(96);
  std::thread other([&] { launch(meet_other_launch, 1, 32, 0, nullptr, &launches, small.data()); });
  launch(meet_other_launch, 1, 96, 0, nullptr, &launches, large.data());
  other.join();
  CHECK(small == std::vector<unsigned>(32, 32) && large == std::vector<unsigned>(96, 96));
}

}  // namespace

int main() {
  test_block_reduction();
  test_shuffles();
  test_partial_warp();
  test_votes();
  test_shared_memory_is_poisoned();
  test_error_codes();
  test_three_dimensions();
  test_arguments_are_copied();
  test_device_functions();
  test_concurrent_launches();
  return tad::checks::report();
}
