// What the tests of the CUDA kernels share: sizes at which something ends, rows that lie far apart, and runs under
// every schedule.
#pragma once

#include <sys/mman.h>
#include <algorithm>
#include <numeric>

#include "../../cuda/kernels.h"
#include "../../cuda_on_host/mbarrier.h"
#include "../../cuda_on_host/runtime.h"
#include "../matrix.h"

namespace tad::checks {

#if defined(TAD_CUDA_ON_HOST_THREADS)
constexpr bool kThreads = true;  // one OS thread per CUDA thread, for ThreadSanitizer: tiny cases only
#else
constexpr bool kThreads = false;
#endif

/// Sizes at which something ends: a group of eight columns, a block's threads, a slice of 16384 columns.
inline std::vector<int64_t> awkward_sizes() {
  if (kThreads) return {8195};
  return {1, 7, 8, 9, 515, 4099, 8195, 16384, 16389};
}

/// Six rows of bfloat16 that are 2^30 + 8 elements apart: the last one begins behind element 2^32 and byte 2^33. Only
/// pages that are touched exist.
class DistantRows {
 public:
  static constexpr int64_t kRows = 6, kStride = (int64_t(1) << 30) + 8;

  explicit DistantRows(int64_t columns) : bytes_(size_t(((kRows - 1) * kStride + columns) * 2)), columns_(columns) {
    memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory_ == MAP_FAILED) {
      std::perror("cannot map 10 GiB of addresses for rows that lie far apart");
      std::exit(EXIT_FAILURE);
    }
  }
  DistantRows(const DistantRows&) = delete;
  DistantRows& operator=(const DistantRows&) = delete;
  ~DistantRows() { munmap(memory_, bytes_); }

  Rows view() const { return {memory_, kStride, DType::kBFloat16, kRows}; }
  MutableRows mutable_view() { return {memory_, kStride, DType::kBFloat16, kRows}; }
  void copy_from(const Matrix& matrix) { copy(matrix.view(), mutable_view()); }
  void copy_to(Matrix& matrix) const { copy(view(), matrix.mutable_view()); }

 private:
  void copy(const Rows& from, const MutableRows& to) const {
    for (int64_t row = 0; row < kRows; ++row)
      std::memcpy(
          static_cast<char*>(to.data) + row * to.row_stride * 2,
          static_cast<const char*>(from.data) + row * from.row_stride * 2, size_t(columns_ * 2));
  }

  size_t bytes_;
  int64_t columns_;
  void* memory_;
};

/// Entries in the order of the rows they name; null: entry i names row i.
class SortedEntries {
 public:
  SortedEntries(const int64_t* rows, int64_t count) : entries_(size_t(rows ? count : 0)) {
    std::iota(entries_.begin(), entries_.end(), 0);
    std::stable_sort(entries_.begin(), entries_.end(), [&](int64_t i, int64_t j) { return rows[i] < rows[j]; });
    for (int64_t entry : entries_) sorted_rows_.push_back(rows[entry]);
  }
  cuda::EntriesByRow view() const {
    return entries_.empty() ? cuda::EntriesByRow{} : cuda::EntriesByRow{sorted_rows_.data(), entries_.data()};
  }

 private:
  std::vector<int64_t> entries_, sorted_rows_;
};

// ---- runs ---------------------------------------------------------------------------------------------------------

/// Calls run(first), which launches kernels and returns their results as bytes, under every schedule. The bytes must
/// always be the same, so it is enough that run(true) checks what they say.
template <class Run>
void under_every_schedule(const Run& run) {
  constexpr const char* kNames[] = {"forward", "reverse", "shuffled"};
  const std::string outer = context;
  std::vector<unsigned char> expected;
  for (const cuda_on_host::Schedule& schedule : cuda_on_host::kSchedules) {
    cuda_on_host::set_schedule(schedule);
    context = outer + ", " + kNames[int(schedule.order)];
    const bool first = schedule.order == cuda_on_host::Order::forward;
    const std::vector<unsigned char> bytes = run(first);
    if (first) expected = bytes;
    CHECK(bytes == expected);
    if (kThreads) break;  // the operating system chooses
  }
  cuda_on_host::set_schedule({});
  context = outer;
}

/// The same, or run(true) under the one schedule that finds most.
template <class Run>
void under_schedules(bool every, const Run& run) {
  if (every) return under_every_schedule(run);
  cuda_on_host::set_schedule({cuda_on_host::Order::shuffled, 1});
  run(true);
  cuda_on_host::set_schedule({});
}

}  // namespace tad::checks
