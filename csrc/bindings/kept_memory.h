// Memory for results as large as logits. On the CPU such memory comes as fresh pages, which the system clears one by
// one when they are first written: that takes longer than the arithmetic. So the last ones that were let go are kept.
#pragma once

#include <ATen/ATen.h>

namespace tad {

/// at::empty(sizes, options), contiguous. On the CPU a large one may lie where an earlier one did, and when it is let
/// go its memory is kept for the next: no more than two pieces, of which the older goes first.
at::Tensor empty_kept(at::IntArrayRef sizes, const at::TensorOptions& options);

}  // namespace tad
