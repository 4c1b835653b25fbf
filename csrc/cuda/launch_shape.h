// How a kernel is launched. Included where dim3 is known.
#pragma once

#include <cstddef>

#include "kernels.h"

namespace tad {
namespace cuda {

/// Clusters of blocks, and dynamic shared memory of each block.
struct LaunchShape {
  dim3 blocks;
  int threads = 0;
  int cluster_blocks = 1;
  size_t shared_bytes = 0;
  bool stays = false;  // each cluster has work as long as there is some: fewer are launched, that all run at a time
  Overlap overlap = {};
};

}  // namespace cuda
}  // namespace tad
