// Independent rows over PyTorch's CPU threads.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "../common/storage.h"

namespace tad {

/// Calls work(row) for every row. Threads take the next row when they are free, so rows of unequal cost balance; no
/// row's result may depend on another's, so results do not depend on the number of threads.
template <class Work>
void parallel_rows(int64_t rows, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(rows, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t row; (row = next.fetch_add(1)) < rows;) work(row);
  });
}

/// The entries that name each row, in entry order: those of row r are entries[start[r]] ... entries[start[r + 1] - 1].
/// A null `rows` means entry i names row i.
struct EntriesOfRow {
  std::vector<int64_t> start;
  std::vector<int64_t> entries;

  EntriesOfRow(const int64_t* rows, int64_t entry_count, int64_t row_count)
      : start(row_count + 1, 0), entries(entry_count) {
    for (int64_t i = 0; i < entry_count; ++i) ++start[(rows ? rows[i] : i) + 1];
    for (int64_t r = 0; r < row_count; ++r) start[r + 1] += start[r];
    std::vector<int64_t> next(start.begin(), start.end() - 1);
    for (int64_t i = 0; i < entry_count; ++i) entries[next[rows ? rows[i] : i]++] = i;
  }
};

/// Fills the contiguous rows of a gradient from the entries that name them: write(entry, row, add) for each entry, in
/// entry order, with `add` from a row's second entry on. Rows that no entry names become zero.
template <class Write>
void write_gradient_rows(
    const MutableRows& gradient, int64_t vocabulary, const int64_t* rows, int64_t entry_count, const Write& write) {
  const EntriesOfRow of_row(rows, entry_count, gradient.row_count);
  const size_t row_bytes = vocabulary * TAD_ISA::element_size(gradient.dtype);
  parallel_rows(gradient.row_count, [&](int64_t row) {
    const int64_t first = of_row.start[row], last = of_row.start[row + 1];
    if (first == last) std::memset(static_cast<char*>(gradient.data) + row * row_bytes, 0, row_bytes);
    for (int64_t k = first; k < last; ++k) write(of_row.entries[k], row, /*add=*/k > first);
  });
}

}  // namespace tad
