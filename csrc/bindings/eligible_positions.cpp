// eligible_positions.
#include "backend.h"
#include "checks.h"
#include "registration.h"
#include "reveal_call.h"

namespace tad {

TAD_SCHEMAS(m) {
  m.def(
      "eligible_positions(Tensor canvas, Tensor blocks, Tensor(a!) positions, int block_length, int mask_token_id) "
      "-> Tensor");
}

namespace {

at::Tensor eligible_positions(
    const at::Tensor& canvas, const at::Tensor& blocks, const at::Tensor& positions, int64_t block_length,
    int64_t mask_token_id) {
  TORCH_CHECK_VALUE(canvas.dim() == 2, "canvas has shape ", canvas.sizes(), ", expected (batch, gen_length)");
  const int64_t batch = canvas.size(0), gen_length = canvas.size(1);
  TORCH_CHECK_VALUE(
      block_length >= 1 && gen_length >= 1 && gen_length % block_length == 0, "block_length is ", block_length,
      ", expected a divisor of the generation length ", gen_length);
  check_writable(canvas, "canvas", at::kLong, {batch, gen_length});
  check_writable(positions, "positions", at::kLong, {batch, gen_length});
  check_shape(blocks, "blocks", at::kLong, {batch});
  check_same_device(blocks, "blocks", canvas, "canvas");
  check_same_device(positions, "positions", canvas, "canvas");
  const at::Tensor created = blocks.contiguous(), progress = at::empty({batch, 3}, canvas.options());
  EligiblePositionsArguments a;
  a.batch = batch;
  a.gen_length = gen_length;
  a.block_length = block_length;
  a.mask_token_id = mask_token_id;
  a.canvas = canvas.const_data_ptr<int64_t>();
  a.blocks = created.const_data_ptr<int64_t>();
  a.positions = positions.mutable_data_ptr<int64_t>();
  a.progress = progress.mutable_data_ptr<int64_t>();
  backend_for(canvas)->eligible_positions(a);
  if (!positions.is_inference()) positions.unsafeGetTensorImpl()->bump_version();
  return progress;
}

}  // namespace

TAD_KERNELS(m) {
  m.impl("eligible_positions", eligible_positions);
}

TAD_DERIVATIVES(m) {
  m.impl("eligible_positions", without_derivative());
}

}  // namespace tad
