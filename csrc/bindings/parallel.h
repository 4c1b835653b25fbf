// Independent rows over PyTorch's CPU threads; where rows are few, the slices of each row over all of them.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <vector>

namespace tad {

/// Calls work(i) for every i < count. Threads take the next one when they are free, so unequal costs balance, and a
/// thread that the system has put aside holds up one piece of work at most.
template <class Work>
void parallel_each(int64_t count, const Work& work) {
  std::atomic<int64_t> next{0};
  const int64_t threads = std::min<int64_t>(count, at::get_num_threads());
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i; (i = next.fetch_add(1)) < count;) work(i);
  });
}

/// Calls f(slice) for every slice, one after the other, or over threads.
struct SlicesInOrder {
  static constexpr bool kInOrder = true;
  template <class Work>
  void operator()(int64_t slices, const Work& f) const {
    for (int64_t slice = 0; slice < slices; ++slice) f(slice);
  }
};
struct SlicesOverThreads {
  static constexpr bool kInOrder = false;
  template <class Work>
  void operator()(int64_t slices, const Work& f) const {
    parallel_each(slices, f);
  }
};

/// Calls work(row, each_slice) for every row, where each_slice(slices, f) calls f(slice) for every slice of the row and
/// returns when all are done. Nothing may depend on who computes what, so results do not depend on the number of
/// threads.
template <class Work>
void parallel_rows(int64_t rows, const Work& work) {
  if (rows < at::get_num_threads() && !at::in_parallel_region()) {
    for (int64_t row = 0; row < rows; ++row) work(row, SlicesOverThreads());
  } else {
    parallel_each(rows, [&](int64_t row) { work(row, SlicesInOrder()); });
  }
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

/// Fills the rows of a gradient from the entries that name them: write(entry, row, add, each_slice) for each entry, in
/// entry order, with `add` from a row's second entry on; zero(row, slice) for every slice of rows that no entry names.
template <class Write, class Zero>
void write_gradient_rows(
    int64_t row_count, int64_t slices, const int64_t* rows, int64_t entry_count, const Write& write, const Zero& zero) {
  const EntriesOfRow of_row(rows, entry_count, row_count);
  std::vector<int64_t> named, unnamed;
  for (int64_t row = 0; row < row_count; ++row)
    (of_row.start[row] < of_row.start[row + 1] ? named : unnamed).push_back(row);
  parallel_each(int64_t(unnamed.size()), [&](int64_t i) {
    for (int64_t slice = 0; slice < slices; ++slice) zero(unnamed[i], slice);
  });
  parallel_rows(int64_t(named.size()), [&](int64_t i, const auto& each_slice) {
    const int64_t row = named[i], first = of_row.start[row], last = of_row.start[row + 1];
    for (int64_t k = first; k < last; ++k) write(of_row.entries[k], row, /*add=*/k > first, each_slice);
  });
}

}  // namespace tad
