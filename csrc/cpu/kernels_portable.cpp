// The CPU kernels for the baseline instruction set of the target (SSE2, NEON).
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels.h"

#include "kernel_table.inl"

namespace tad {
const CpuKernels kPortableKernels = {"portable", portable::kernels_of<float>(), portable::kernels_of<double>()};
}
