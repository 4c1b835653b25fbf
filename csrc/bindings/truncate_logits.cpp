// truncate_logits.
#include <algorithm>

#include "backend.h"
#include "checks.h"
#include "kept_memory.h"
#include "registration.h"

namespace tad {

TAD_SCHEMAS(m) {
  m.def("truncate_logits(Tensor logits, float temperature, int? top_k, float top_p) -> Tensor");
}

namespace {

at::Tensor truncate_logits(const at::Tensor& logits, double temperature, std::optional<int64_t> top_k, double top_p) {
  check_logits(logits, "logits");
  TORCH_CHECK_VALUE(
      temperature > 0 && std::isfinite(temperature), "temperature is ", temperature, ", expected a finite number > 0");
  TORCH_CHECK_VALUE(!top_k || *top_k >= 1, "top_k is ", *top_k, ", expected an integer >= 1, or none");
  TORCH_CHECK_VALUE(top_p > 0 && top_p <= 1, "top_p is ", top_p, ", expected 0 < value <= 1");
  const at::Tensor rows = as_rows(logits);
  const at::Tensor out = empty_kept(rows.sizes(), rows.options());
  TruncationArguments a;
  a.logits = rows_view(rows);
  a.out = mutable_rows_view(out);
  a.vocabulary = rows.size(1);
  a.temperature = std::clamp(temperature, 1e-30, 1e30);  // beyond, one token has all probability, or each as much
  a.top_k = top_k.value_or(a.vocabulary);
  a.top_p = top_p;
  backend_for(logits)->truncate_logits(a);
  return out.view(logits.sizes());
}

}  // namespace

TAD_KERNELS(m) {
  m.impl("truncate_logits", truncate_logits);
}

TAD_DERIVATIVES(m) {
  m.impl("truncate_logits", without_derivative());
}

}  // namespace tad
