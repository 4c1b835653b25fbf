// Which entries name a gradient's row.
#pragma once

#include "platform.cuh"

namespace tad {
namespace cuda {

/// Positions [first, last) of the entries, in the order that EntriesByRow lists them, that name one row.
struct NamedBy {
  int64_t first, last;
};

/// How many of the first lanes of a warp say yes before one that does not. All lanes must call this.
__device__ __forceinline__ int leading(bool value) {
  const unsigned no = ~__ballot_sync(~0u, value);
  return no ? __ffs(int(no)) - 1 : kWarp;
}

/// The first position whose row is not below `row`, found by every warp: 32 places at a time, since a read of memory is
/// waited for as long as 32 are.
__device__ __forceinline__ int64_t lower_bound(const int64_t* sorted_rows, int64_t count, int64_t row) {
  const int64_t lane = threadIdx.x % kWarp;
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t step = (high - low + kWarp - 1) / kWarp, place = low + lane * step;
    const int below = leading(place < high && sorted_rows[place] < row);
    if (below == 0) return low;
    const int64_t next = low + below * step;  // the place of the first lane that says no
    low = next - step + 1;
    high = next < high ? next : high;
  }
  return low;
}

/// All threads of a block must call this, for the same row.
__device__ __forceinline__ NamedBy entries_of_row(const EntriesByRow& by_row, int64_t entries, int64_t row) {
  if (!by_row.sorted_rows) return {row, row < entries ? row + 1 : row};
  NamedBy named;
  named.first = named.last = lower_bound(by_row.sorted_rows, entries, row);
  for (int more = kWarp; more == kWarp; named.last += more) {  // hardly ever more than one
    const int64_t place = named.last + threadIdx.x % kWarp;
    more = leading(place < entries && by_row.sorted_rows[place] == row);
  }
  return named;
}

__device__ __forceinline__ int64_t entry_at(const EntriesByRow& by_row, int64_t position) {
  return by_row.entries ? by_row.entries[position] : position;
}

/// What a cluster does with a row of the gradient: one of the entries that name it, or nothing but zeros.
struct RowEntry {
  int64_t row = 0, position = 0, last = 0;
  bool add = false;  // to what the row holds already

  __device__ bool is_named() const { return position < last; }
};

/// The first of a row, and the one after another, in the same row or `rows` further on. By all lanes of a warp.
__device__ __forceinline__ RowEntry first_of_row(const EntriesByRow& by_row, int64_t entries, int64_t row) {
  const NamedBy named = entries_of_row(by_row, entries, row);
  return {row, named.first, named.last};
}
__device__ __forceinline__ RowEntry
entry_after(const EntriesByRow& by_row, int64_t entries, const RowEntry& one, int64_t rows) {
  if (one.position + 1 >= one.last) return first_of_row(by_row, entries, one.row + rows);
  return {one.row, one.position + 1, one.last, /*add=*/true};
}

}  // namespace cuda
}  // namespace tad
