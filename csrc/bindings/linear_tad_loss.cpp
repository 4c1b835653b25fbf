// linear_tad_loss: the loss of `hidden @ weight.T` without ever holding more than one chunk of logits.
#include <ATen/autocast_mode.h>

#include "../common/entries.h"
#include "backend.h"
#include "checks.h"
#include "operators.h"
#include "tad_entries.h"
#include "tiled_mm.h"

namespace tad {
namespace {

void check_hidden(const at::Tensor& hidden, const char* name, const at::Tensor& weight) {
  check_logits(hidden, name);
  TORCH_CHECK_VALUE(
      hidden.dim() == 2 && hidden.size(1) == weight.size(1), name, " has shape ", hidden.sizes(), ", expected (rows, ",
      weight.size(1), ") to go with lm_head_weight ", weight.sizes());
  TORCH_CHECK_TYPE(
      hidden.scalar_type() == weight.scalar_type(), name, " has dtype ", hidden.scalar_type(), ", expected ",
      weight.scalar_type(), " like lm_head_weight");
  check_same_device(hidden, name, weight, "lm_head_weight");
}

/// Matrix products: on the CPU in tiles, whose bits do not depend on the rows around; on a GPU as PyTorch does them.
struct Products {
  bool tiled;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};

  at::Tensor whole_tiles(const at::Tensor& rows) const { return tiled ? pad_to_tiles(rows) : rows; }
  at::Tensor product(const at::Tensor& a, const at::Tensor& b) const { return tiled ? tiled_mm(a, b) : at::mm(a, b); }
};

/// The teacher's logits for entries [begin, end), and where each entry finds its row among them.
struct ChunkTeacher {
  at::Tensor logits, rows;

  /// For the distant entries alone, where the host can tell which they are.
  static ChunkTeacher of_distant_entries(
      const TadLossArguments& a, const at::Tensor& hidden, const at::Tensor& weight, const Products& products,
      int64_t begin, int64_t end) {
    std::vector<int64_t> row_of(end - begin, 0), sources;
    for (int64_t i = begin; i < end; ++i) {
      if (TAD_ISA::kind_of(a, i) != TAD_ISA::EntryKind::kDistant) continue;
      row_of[i - begin] = int64_t(sources.size());
      sources.push_back(TAD_ISA::row_of(a.teacher_rows, i));
    }
    if (sources.empty()) return {};
    const at::Tensor chosen = hidden.index_select(0, at::tensor(sources, at::kLong));
    return {products.product(products.whole_tiles(chosen), weight.t()), at::tensor(row_of, at::kLong)};
  }

  /// For every entry, where finding the distant ones would wait for the device. A row that is not there is marked -1.
  static ChunkTeacher of_all_entries(
      const std::optional<at::Tensor>& teacher_rows, const at::Tensor& hidden, const at::Tensor& weight,
      const Products& products, int64_t begin, int64_t end) {
    if (!teacher_rows) return {products.product(hidden.slice(0, begin, end), weight.t()), {}};
    const at::Tensor named = teacher_rows->slice(0, begin, end);
    const at::Tensor own = at::arange(end - begin, named.options());
    const at::Tensor exists = named.ge(0).logical_and_(named.lt(hidden.size(0)));
    if (hidden.size(0) == 0) return {at::empty({0, weight.size(0)}, hidden.options()), own.fill_(-1)};
    const at::Tensor chosen = hidden.index_select(0, named.clamp(0, hidden.size(0) - 1));
    return {products.product(chosen, weight.t()), at::where(exists, own, -1)};
  }
};

/// The view of entries [begin, end) alone.
TadLossArguments part_of(TadLossArguments a, int64_t begin, int64_t end) {
  a.entries = end - begin;
  a.labels += begin;
  a.steps += begin;
  if (a.row_weight) a.row_weight += begin;
  a.teacher_rows = nullptr;
  return a;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor> linear_tad_loss(
    const at::Tensor& student_hidden, const OptionalTensor& teacher_hidden, const at::Tensor& lm_head_weight,
    const at::Tensor& labels, const at::Tensor& steps_to_reveal, int64_t delta, double ce_weight, double kl_weight,
    double temperature, const OptionalTensor& row_weight, const OptionalTensor& teacher_rows,
    const OptionalTensor& near_count, const OptionalTensor& distant_count, int64_t chunk_rows, bool hidden_grad,
    bool weight_grad) {
  check_logits(lm_head_weight, "lm_head_weight");
  TORCH_CHECK_VALUE(
      lm_head_weight.dim() == 2, "lm_head_weight has shape ", lm_head_weight.sizes(), ", expected (vocabulary, D)");
  check_hidden(student_hidden, "student_hidden", lm_head_weight);
  TORCH_CHECK_VALUE(
      teacher_hidden || kl_weight == 0, "teacher_hidden is None, expected hidden rows because kl_weight is ",
      kl_weight);
  if (teacher_hidden) check_hidden(*teacher_hidden, "teacher_hidden", lm_head_weight);
  TORCH_CHECK_VALUE(chunk_rows >= 1, "chunk_rows is ", chunk_rows, ", expected an integer >= 1");
  TadEntries entries(
      student_hidden, "student_hidden", labels, steps_to_reveal, row_weight, std::nullopt, teacher_rows,
      {ce_weight, kl_weight, temperature, delta});
  entries.set_denominators(near_count, distant_count);
  entries.check_rows(
      lm_head_weight.size(0), student_hidden.size(0),
      teacher_hidden ? std::optional(teacher_hidden->size(0)) : std::nullopt);
  const auto backend = backend_for(student_hidden);
  const Products products{backend->host_reads_values()};
  const auto real = real_type(student_hidden);

  const TadResult result(student_hidden);
  TadLossArguments all = entries.arguments();
  all.vocabulary = lm_head_weight.size(0);
  all.student.dtype = dtype_of(student_hidden);
  all.student.row_count = entries.size();
  backend->tad_totals(all, nullptr, result.counts());
  all.near_count = result.near_count.const_data_ptr<int64_t>();
  all.distant_count = result.distant_count.const_data_ptr<int64_t>();

  const at::Tensor losses = at::empty({entries.size()}, student_hidden.options().dtype(at::kDouble));
  at::Tensor grad_hidden = hidden_grad ? at::empty_like(student_hidden, at::MemoryFormat::Contiguous)
                                       : at::empty({0}, student_hidden.options());
  at::Tensor grad_weight = weight_grad ? at::zeros(lm_head_weight.sizes(), lm_head_weight.options().dtype(real))
                                       : at::empty({0}, lm_head_weight.options());
  for (int64_t begin = 0; begin < entries.size(); begin += chunk_rows) {
    const int64_t end = std::min(begin + chunk_rows, entries.size());
    const at::Tensor hidden = products.whole_tiles(student_hidden.slice(0, begin, end));
    const at::Tensor logits = products.product(hidden, lm_head_weight.t());
    ChunkTeacher teacher;
    if (teacher_hidden)
      teacher = backend->host_reads_values()
                    ? ChunkTeacher::of_distant_entries(all, *teacher_hidden, lm_head_weight, products, begin, end)
                    : ChunkTeacher::of_all_entries(
                          entries.teacher_rows(), *teacher_hidden, lm_head_weight, products, begin, end);
    TadLossArguments a = part_of(all, begin, end);
    a.student = rows_view(logits);
    if (teacher.logits.defined()) a.teacher = rows_view(teacher.logits);
    if (teacher.rows.defined()) a.teacher_rows = teacher.rows.const_data_ptr<int64_t>();
    double* const loss_of_entry = losses.mutable_data_ptr<double>() + begin;
    if (!hidden_grad && !weight_grad) {
      backend->tad_loss(a, loss_of_entry, nullptr);
      continue;
    }
    // The gradient takes the logits' place. Rows that pad the chunk to whole tiles become zero and add nothing.
    const TadGradient in_place{mutable_rows_view(logits)};
    backend->tad_loss(a, loss_of_entry, &in_place);
    if (hidden_grad)
      grad_hidden.slice(0, begin, end).copy_(products.product(logits, lm_head_weight).narrow(0, 0, end - begin));
    if (weight_grad) grad_weight.add_(products.product(logits.t(), hidden));
  }
  backend->tad_totals(all, losses.const_data_ptr<double>(), result.view());
  return {
      result.loss,
      result.ce,
      result.kl,
      result.near_count,
      result.distant_count,
      grad_hidden,
      grad_weight.to(lm_head_weight.scalar_type())};
}

std::tuple<at::Tensor, at::Tensor> linear_tad_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& grad_hidden, const at::Tensor& grad_weight, const at::Tensor&,
    const at::Tensor&) {
  return {grad_hidden * grad_loss, grad_weight * grad_loss};
}

}  // namespace tad
