// How many blocks work on a row, and whether they keep it (csrc/cuda/resident.cuh), for the vocabularies that matter on
// the devices that matter.
#include "../../cuda/resident.cuh"
#include "../check.h"

namespace {

using namespace tad;
using namespace tad::cuda;

constexpr int kLlada = 126464, kDream = 152064;
constexpr Device kH100{132, 50 << 20, 227 << 10, 16, /*like_hopper=*/true};
constexpr Device kA100{108, 40 << 20, 163 << 10, 1};

bool is(const RowPlan& plan, int cluster_blocks, bool resident) {
  return plan.cluster_blocks == cluster_blocks && plan.resident == resident;
}

void test_blocks() {
  CHECK(is(plan_rows(kH100, kLlada, 2), 4, true));      // cross-entropy in bfloat16
  CHECK(is(plan_rows(kH100, kLlada, 2 + 2), 8, true));  // a pair
  CHECK(is(plan_rows(kH100, kLlada, 4), 8, true));
  CHECK(is(plan_rows(kH100, kLlada, 4 + 4), 16, true));
  CHECK(is(plan_rows(kH100, kDream, 2), 8, true));
  CHECK(is(plan_rows(kH100, kDream, 2 + 2), 16, true));
  CHECK(is(plan_rows(kH100, kLlada, 8 + 8), 16, true));
  CHECK(is(plan_rows(kH100, 2 * kLlada, 8 + 8), 16, false));  // too large
  CHECK(is(plan_rows(kH100, 1, 2), 1, true));
  CHECK(is(plan_rows(kA100, kLlada, 2), 1, false));
  CHECK(is(plan_rows(kA100, 32000, 2), 1, true));
}

/// Where the device has them whole rows come by bulk copies, asked for a row ahead, unless the environment says
/// otherwise.
void test_loaders() {
  unsetenv("TAD_CUDA_LOADER");
  CHECK(!plan_rows(kH100, kLlada, 2, /*whole_rows=*/false).bulk_copies);
  CHECK(plan_rows(kH100, kLlada, 2).bulk_copies && plan_rows(kH100, 1, 2).bulk_copies);
  CHECK(!plan_rows(kH100, 2 * kLlada, 8 + 8).bulk_copies);  // which is read again
  CHECK(!plan_rows(kA100, 32000, 2).bulk_copies);
  for (const char* chosen : {"threads", "bulk", "ahead", ""}) {
    setenv("TAD_CUDA_LOADER", chosen, 1);
    CHECK(plan_rows(kH100, kLlada, 2).asks_ahead == (*chosen == 'a' || !*chosen));
    CHECK(!plan_rows(kA100, 32000, 2).asks_ahead);
    CHECK(plan_rows(kH100, kLlada, 2).bulk_copies == (*chosen != 't'));
    CHECK(is(plan_rows(kH100, kLlada, 2), 4, true));
  }
  unsetenv("TAD_CUDA_LOADER");
}

/// A share of a device has room for smaller clusters, or none; what then does not fit a block is read again.
void test_devices_with_less_room() {
  const auto with_room_for = [](int blocks) {
    Device device = kH100;
    device.cluster_blocks = blocks;
    return device;
  };
  CHECK(is(plan_rows(with_room_for(8), kLlada, 4 + 4), 8, true));
  CHECK(is(plan_rows(with_room_for(8), kLlada, 8 + 8), 8, false));
  CHECK(is(plan_rows(with_room_for(4), kLlada, 2 + 2), 4, true));
  CHECK(is(plan_rows(with_room_for(4), kLlada, 4 + 4), 4, false));
  CHECK(is(plan_rows(with_room_for(2), kLlada, 2), 2, true));
  CHECK(is(plan_rows(with_room_for(1), kLlada, 2), 1, false));
  CHECK(is(plan_rows(with_room_for(1), 32000, 2), 1, true));
}

/// Rows are whole that begin on 16-byte boundaries and consist of groups of eight.
void test_whole_rows() {
  alignas(16) static BFloat16 memory[64];
  const auto whole = [](int64_t columns, int64_t stride, int offset = 0, int64_t rows = 2) {
    return are_whole(Rows{memory + offset, stride, DType::kBFloat16, rows}, columns);
  };
  CHECK(whole(16, 16) && whole(16, 24) && whole(16, 0) && whole(8, 16, 8));
  CHECK(!whole(15, 16) && !whole(16, 20) && !whole(8, 16, 4));
  CHECK(whole(16, 20, 0, /*rows=*/1) && !whole(16, 16, 4, /*rows=*/1));  // which is not apart from any other
  CHECK(whole(16, 16, 4, /*rows=*/0) && !whole(15, 16, 0, /*rows=*/0));  // nowhere
}

void test_shared_memory_is_that_of_a_block() {
  CHECK(plan_rows(kH100, kLlada, 2).shared_bytes == kLlada / 4 * 2);
  CHECK(plan_rows(kH100, kLlada, 8).shared_bytes == kLlada / 16 * 8);
  CHECK(plan_rows(kH100, kLlada + 1, 2).shared_bytes == (kLlada / 4 + 8) * 2);  // whole groups
  CHECK(plan_rows(kA100, kLlada, 2).shared_bytes == 0);
}

/// As many as stay in three quarters of the cache, but one for each multiprocessor.
void test_rows_at_a_time() {
  const int64_t cache = kA100.l2_bytes / 4 * 3;
  CHECK(plan_rows(kA100, kLlada, 2).rows_at_a_time == cache / (kLlada * 2));
  CHECK(plan_rows(kA100, kLlada, 2).rows_at_a_time > kA100.multiprocessors);
  CHECK(plan_rows(kA100, kLlada, 16).rows_at_a_time == kA100.multiprocessors);
}

void test_shapes() {
  const RowPlan kept = plan_rows(kH100, kLlada, 4), read_again = plan_rows(kA100, kLlada, 2);
  LaunchShape shape = shape_of(kept, 1000, /*visited_twice=*/true);
  CHECK(shape.blocks.x == 8000 && shape.cluster_blocks == 8 && shape.shared_bytes == kept.shared_bytes);
  shape = shape_of(kept, 1000, /*visited_twice=*/false);
  CHECK(shape.blocks.x == 8000 && shape.cluster_blocks == 8 && shape.shared_bytes == 0);
  shape = shape_of(read_again, 1000, /*visited_twice=*/true);
  CHECK(shape.blocks.x == read_again.rows_at_a_time && shape.cluster_blocks == 1 && shape.shared_bytes == 0);
  CHECK(shape_of(read_again, 1000, /*visited_twice=*/false).blocks.x == 1000);
  CHECK(shape_of(read_again, 3, /*visited_twice=*/true).blocks.x == 3);
}

/// As many as run at a time, or fewer, so that all have as many rows, or one less; a few times as many where that would
/// be more than eight.
void test_clusters_that_stay() {
  CHECK(clusters_that_stay(64, 45) == 32);
  CHECK(clusters_that_stay(45, 45) == 45 && clusters_that_stay(1, 45) == 1);
  CHECK(clusters_that_stay(46, 45) == 23);
  CHECK(clusters_that_stay(512, 98) == 86);     // six rows, the last one five or six
  CHECK(clusters_that_stay(512, 45) == 86);     // twelve rounds are twice six
  CHECK(clusters_that_stay(882, 98) == 294);    // nine rounds are three times three
  CHECK(clusters_that_stay(8192, 45) == 1024);  // and 183 nearly 23 times eight
  CHECK(clusters_that_stay(8, 1) == 1 && clusters_that_stay(9, 1) == 3 && clusters_that_stay(16, 1) == 2);
  CHECK(clusters_that_stay(512, 0) == 512);  // the device cannot tell
}

void columns_of_warps_kernel(int columns, WarpColumns* ranges) {
  Cluster cluster;
  const WarpColumns range = columns_of_warp(columns, cluster, /*batch=*/4);
  if (lane() == 0) ranges[cluster.rank() * (kRowThreads / kWarp) + int(threadIdx.x) / kWarp] = range;
  cluster.leave();
}

/// The groups of a block.
int groups_in(int columns, int blocks, int block) {
  const int each = groups_per_block(columns, blocks), left = (columns + kGroup - 1) / kGroup - block * each;
  return left < 0 ? 0 : left < each ? left : each;
}

/// Every group belongs to one warp, as far as the row goes, and has its place in what that warp's block keeps.
void test_columns_of_warps() {
  constexpr int kWarps = kRowThreads / kWarp;
  for (int columns : {1, 8, 9, 63, 64, 65, 523, kLlada, kDream + 1})
    for (int blocks : {1, 2, 4, 8, 16}) {
      WarpColumns ranges[16 * kWarps], *const of_warp = ranges;
      const LaunchShape shape{dim3(unsigned(blocks)), kRowThreads, blocks};
      CHECK(launch(columns_of_warps_kernel, shape, nullptr, columns, of_warp) == 0);
      int group = 0;
      for (int warp = 0; warp < blocks * kWarps; ++warp) {
        const WarpColumns& range = ranges[warp / kWarps * kWarps + kWarps - 1 - warp % kWarps];  // from the last one on
        const int in_block = group - warp / kWarps * groups_per_block(columns, blocks);
        CHECK(range.groups == 0 || (range.begin == group * kGroup && range.kept_at == in_block));
        CHECK(range.half >= (range.groups + 1) / 2 && range.half <= range.groups);
        CHECK(range.half % (4 * kWarp) == 0 || range.half == range.groups);
        CHECK(range.groups % (2 * kWarp) == 0 || in_block + range.groups == groups_in(columns, blocks, warp / kWarps));
        CHECK(range.groups >= 0 && in_block + range.groups <= groups_per_block(columns, blocks));
        group += range.groups;
      }
      CHECK(group == (columns + kGroup - 1) / kGroup);
    }
}

}  // namespace

int main() {
  test_blocks();
  test_loaders();
  test_devices_with_less_room();
  test_whole_rows();
  test_shared_memory_is_that_of_a_block();
  test_rows_at_a_time();
  test_shapes();
  test_clusters_that_stay();
  test_columns_of_warps();
  return tad::checks::report();
}
