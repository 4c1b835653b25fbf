// What a launcher's status means.
#include "platform.cuh"

namespace tad {
namespace cuda {

const char* status_text(Status status) {
  return cudaGetErrorString(static_cast<cudaError_t>(status));
}

}  // namespace cuda
}  // namespace tad
