// The ways in which a row is worked on (csrc/cuda/resident.cuh), and devices that make the launchers take each of them.
#pragma once

#include "../../cuda/device.h"
#include "runs.h"

namespace tad::checks {

/// How many blocks share a row, whether they keep it, how many rows are worked on at a time (0: all; of rows that are
/// kept, where they are asked for ahead), and by what loader whole rows come that are kept.
struct Path {
  const char* name;
  unsigned cluster_blocks;
  bool kept;
  unsigned rows_at_a_time;
  const char* loader = "bulk";
};
constexpr Path kPaths[] = {
    {"brought by threads, kept by 1 block", 1, true, 0, "threads"},
    {"brought by threads, kept by 2 blocks", 2, true, 0, "threads"},
    {"brought by threads, kept by 8 blocks", 8, true, 0, "threads"},
    {"kept by 1 block, a row ahead", 1, true, 1, "ahead"},
    {"kept by 2 blocks, a row ahead", 2, true, 1, "ahead"},
    {"kept by 8 blocks, a row ahead, two at a time", 8, true, 2, "ahead"},
    {"kept by 1 block", 1, true, 0},
    {"kept by 2 blocks", 2, true, 0},
    {"kept by 4 blocks", 4, true, 0},
    {"kept by 8 blocks", 8, true, 0},
    {"kept by 16 blocks", 16, true, 0},
    {"read again by 16 blocks", 16, false, 0},
    {"read again by 16 blocks, two rows at a time", 16, false, 2},
    {"read again by 1 block", 1, false, 2},
};

/// Whether a path is left out where a CUDA thread is an OS thread: two blocks race as well as eight.
inline bool is_left_out(const Path& path) {
  return kThreads && path.cluster_blocks != 2;
}

/// While it lives rows of so many columns, and bytes per column, take a path. Then the device is as it was.
class OnPath {
 public:
  OnPath(const Path& path, int64_t columns, int64_t column_bytes) : path_(path), before_(cuda_on_host::device) {
    setenv("TAD_CUDA_LOADER", path.loader, 1);
    constexpr int64_t kReserved = 5 << 10;
    const int64_t groups = (columns + 7) / 8, blocks = path.cluster_blocks;
    const int64_t block_bytes = (groups + blocks - 1) / blocks * 8 * column_bytes;
    cuda_on_host::Device& device = cuda_on_host::device;
    device.clusters = path.kept || path.cluster_blocks > 1;
    device.shared_bytes_per_block = int(path.kept ? 3 * (block_bytes + kReserved) : kReserved);  // three take turns
    if (path.kept && path.rows_at_a_time > 0) {
      device.most_clusters = path.rows_at_a_time;
    } else if (path.rows_at_a_time > 0) {
      device.multiprocessors = int(path.rows_at_a_time);  // one row for each
      device.l2_bytes = 1;
    }
    outer_context_ = context;
    context += std::string(", ") + path.name;
  }
  OnPath(const OnPath&) = delete;
  OnPath& operator=(const OnPath&) = delete;
  ~OnPath() {
    unsetenv("TAD_CUDA_LOADER");
    cuda_on_host::device = before_;
    context = outer_context_;
  }

  /// What is checked of the last launch, of rows visited twice: whether they are kept where they can be, and are whole,
  /// and whether the kernel asks for rows ahead.
  struct Rows {
    bool can_be_kept = true, whole = false, asks_ahead = false;
  };
  void check_launch(int64_t rows, const Rows& of) const {
    const cuda_on_host::Launched& launched = cuda_on_host::last_launched;
    const bool kept = path_.kept && of.can_be_kept;
    const bool by_copies = kept && of.whole && std::strcmp(path_.loader, "threads");
    unsigned at_a_time = unsigned(rows);
    if (path_.rows_at_a_time > 0 && !path_.kept) at_a_time = std::min(path_.rows_at_a_time, at_a_time);
    if (path_.rows_at_a_time > 0 && by_copies && of.asks_ahead)
      at_a_time = cuda::clusters_that_stay(at_a_time, path_.rows_at_a_time);
    CHECK(launched.cluster_blocks == path_.cluster_blocks);
    CHECK(launched.grid.x == at_a_time * path_.cluster_blocks);
    CHECK((launched.shared_bytes > 0) == kept);
    if (kept) CHECK((cuda_on_host::bulk_copies > copies_before_) == by_copies);
  }

 private:
  Path path_;
  cuda_on_host::Device before_;
  uint64_t copies_before_ = cuda_on_host::bulk_copies;
  std::string outer_context_;
};

}  // namespace tad::checks
