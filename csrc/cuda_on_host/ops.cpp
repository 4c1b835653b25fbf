// A library that, once loaded, makes the CUDA kernels serve CPU tensors: the kernels, launchers and bindings are those
// of csrc/cuda and csrc/bindings, run on the host by this folder. It lets the operators' Python tests run over them
// where there is no GPU (`make test-cuda-on-host`). Linked with kernels.cpp.
#define TAD_CUDA_ON_HOST

#include "runtime.h"

#include "../bindings/backend.cpp"
#include "../bindings/backend_cuda.cpp"
#include "../bindings/checks.cpp"
#include "../bindings/commit_reveal.cpp"
#include "../bindings/eligible_positions.cpp"
#include "../bindings/kept_memory.cpp"
#include "../bindings/linear_tad_loss.cpp"
#include "../bindings/log_softmax.cpp"
#include "../bindings/select_reveal.cpp"
#include "../bindings/tad_entries.cpp"
#include "../bindings/tad_loss.cpp"
#include "../bindings/token_statistics.cpp"
#include "../bindings/truncate_logits.cpp"

// Little shared memory, so that the small vocabularies of the tests need clusters of every size, and some do not fit;
// and few clusters at a time, so that each works on several rows.
static const bool device_is_small = [] {
  cuda_on_host::device.shared_bytes_per_block = 18 << 10;
  cuda_on_host::device.most_clusters = 2;
  return true;
}();
