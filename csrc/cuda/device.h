// What the launchers want to know about a device: no CUDA header.
#pragma once

namespace tad {
namespace cuda {

struct Device {
  int multiprocessors = 1, l2_bytes = 1 << 20, shared_bytes_per_block = 48 << 10;
  bool clusters = false;
};

}  // namespace cuda
}  // namespace tad
