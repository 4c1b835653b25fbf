// Which entries name a gradient's row.
#pragma once

#include "platform.cuh"

namespace tad {
namespace cuda {

/// Positions [first, last) of the entries, in the order that EntriesByRow lists them, that name one row.
struct NamedBy {
  int64_t first, last;
};

/// The first position whose row is not below `row`.
__device__ __forceinline__ int64_t lower_bound(const int64_t* sorted_rows, int64_t count, int64_t row) {
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = (low + high) / 2;
    if (sorted_rows[middle] < row)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

__device__ __forceinline__ NamedBy entries_of_row(const EntriesByRow& by_row, int64_t entries, int64_t row) {
  if (!by_row.sorted_rows) return {row, row < entries ? row + 1 : row};
  NamedBy named;
  named.first = named.last = lower_bound(by_row.sorted_rows, entries, row);
  while (named.last < entries && by_row.sorted_rows[named.last] == row) ++named.last;  // hardly ever more than once
  return named;
}

__device__ __forceinline__ int64_t entry_at(const EntriesByRow& by_row, int64_t position) {
  return by_row.entries ? by_row.entries[position] : position;
}

}  // namespace cuda
}  // namespace tad
