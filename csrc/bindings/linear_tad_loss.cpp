// linear_tad_loss: the loss of `hidden @ weight.T` without ever holding more than one chunk of logits.
#include <ATen/autocast_mode.h>

#include "../common/entries.h"
#include "backend.h"
#include "checks.h"
#include "derivatives.h"
#include "kept_memory.h"
#include "registration.h"
#include "tad_entries.h"
#include "tiled_mm.h"

namespace tad {

TAD_SCHEMAS(m) {
  const std::string loss =
      std::string("linear_tad_loss(Tensor student_hidden, Tensor? teacher_hidden, Tensor lm_head_weight, ") +
      TadEntries::kSchema +
      ", int chunk_rows, bool hidden_grad, bool weight_grad) -> (Tensor loss, Tensor ce, Tensor kl, "
      "Tensor near_count, Tensor distant_count, Tensor entry_losses, Tensor grad_hidden, Tensor grad_weight)";
  m.def(loss.c_str());
  // The hidden states and the weight are arguments only so that double backward is noticed.
  m.def(
      "linear_tad_loss_backward(Tensor grad_loss, Tensor grad_hidden, Tensor grad_weight, Tensor student_hidden, "
      "Tensor lm_head_weight) -> (Tensor, Tensor)");
}

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
  int64_t tile;
  c10::impl::ExcludeDispatchKeyGuard no_autocast{c10::autocast_dispatch_keyset};

  int64_t whole_tiles(int64_t rows) const { return tiled ? (rows + tile - 1) / tile * tile : rows; }

  void into(at::Tensor out, const at::Tensor& a, const at::Tensor& b) const {
    if (tiled)
      tiled_mm_out(out, a, b);
    else
      at::mm_out(out, a, b);
  }
};

/// The entries in the order they are worked through: those that may be distant come first, so that only chunks of them
/// need the teacher.
struct Order {
  std::optional<at::Tensor> entries;  // nullopt: as they are
  int64_t may_be_distant = 0;

  /// Where the host may not look at the entries, all may be distant, but no more than the teacher has rows.
  static Order of(const TadEntries& entries, const std::optional<at::Tensor>& teacher_hidden, bool host_reads_values) {
    Order order;
    if (!teacher_hidden || entries.size() == 0) return order;
    const at::Tensor near_or_silent = entries.steps().le(entries.delta());
    order.may_be_distant = host_reads_values ? entries.size() - near_or_silent.sum().item<int64_t>()
                                             : std::min(entries.size(), teacher_hidden->size(0));
    if (order.may_be_distant < entries.size())
      order.entries = std::get<1>(at::sort(near_or_silent, /*stable=*/true, /*dim=*/0, /*descending=*/false));
    return order;
  }

  at::Tensor chosen(const at::Tensor& of_all, int64_t begin, int64_t end) const {
    return entries ? of_all.index_select(0, entries->slice(0, begin, end)) : of_all.slice(0, begin, end);
  }
  void scatter(at::Tensor& to_all, int64_t begin, int64_t end, const at::Tensor& values) const {
    if (entries)
      to_all.index_copy_(0, entries->slice(0, begin, end), values);
    else
      to_all.slice(0, begin, end).copy_(values);
  }
};

/// Rows of a chunk, at most `most` of so many: chunks of nearly one length, so that no few rows are left over, whose
/// product takes as long as reading the head. In whole tiles of a GPU's products, where half a chunk is left at least.
int64_t even_chunk_rows(int64_t rows, int64_t most) {
  constexpr int64_t kTile = 128;
  if (rows <= most) return most;
  const int64_t chunks = rows / most + (rows % most != 0), each = (rows + chunks - 1) / chunks;
  const int64_t whole = std::min(most, (each + kTile - 1) / kTile * kTile);
  return 2 * (rows - (chunks - 1) * whole) >= whole ? whole : each;
}

/// The teacher rows that a chunk's first entries name, and each entry's place among them: its own, or -1 where it names
/// none or is not among the first.
struct ChunkTeacher {
  at::Tensor hidden, places;

  ChunkTeacher(const at::Tensor& named, int64_t entries, const at::Tensor& teacher_hidden) {
    const int64_t rows = teacher_hidden.size(0), first = named.size(0);
    const at::Tensor exists = named.ge(0).logical_and_(named.lt(rows));
    hidden = teacher_hidden.index_select(0, named.clamp(0, rows - 1));
    places = at::full({entries}, -1, named.options());
    places.narrow(0, 0, first).copy_(at::where(exists, at::arange(first, named.options()), -1));
  }
};

/// The view of entries [begin, end) alone.
TadLossArguments part_of(TadLossArguments a, int64_t begin, int64_t end) {
  a.entries = end - begin;
  a.labels += begin;
  a.steps += begin;
  if (a.row_weight) a.row_weight += begin;
  a.student_rows = a.teacher_rows = nullptr;
  return a;
}

using LinearLossResult =
    std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

LinearLossResult linear_loss_of(
    const at::Tensor& student_hidden, const OptionalTensor& teacher_hidden, const at::Tensor& lm_head_weight,
    const TadEntries& entries, int64_t chunk_rows, bool hidden_grad, bool weight_grad) {
  check_logits(lm_head_weight, "lm_head_weight");
  TORCH_CHECK_VALUE(
      lm_head_weight.dim() == 2, "lm_head_weight has shape ", lm_head_weight.sizes(), ", expected (vocabulary, D)");
  check_hidden(student_hidden, "student_hidden", lm_head_weight);
  entries.check_teacher(teacher_hidden, "teacher_hidden");
  if (teacher_hidden) check_hidden(*teacher_hidden, "teacher_hidden", lm_head_weight);
  TORCH_CHECK_VALUE(chunk_rows >= 1, "chunk_rows is ", chunk_rows, ", expected an integer >= 1");
  entries.check_rows(
      lm_head_weight.size(0), student_hidden.size(0),
      teacher_hidden ? std::optional(teacher_hidden->size(0)) : std::nullopt);
  const auto backend = backend_for(student_hidden);
  const Products products{backend->host_reads_values(), tile_rows(lm_head_weight.scalar_type())};
  const auto real = real_type(student_hidden);

  const TadResult result(student_hidden);
  const Order order = Order::of(entries, teacher_hidden, backend->host_reads_values());
  chunk_rows = even_chunk_rows(entries.size() + order.may_be_distant, chunk_rows);
  const auto view_of = [&](const TadEntries& some) {
    TadLossArguments a = some.arguments();
    a.vocabulary = lm_head_weight.size(0);
    a.student.dtype = dtype_of(student_hidden);
    a.student.row_count = some.size();
    a.near_count = result.near_count.const_data_ptr<int64_t>();
    a.distant_count = result.distant_count.const_data_ptr<int64_t>();
    return a;
  };
  const TadEntries ordered = order.entries ? entries.reordered(*order.entries) : entries;
  const TadLossArguments all = view_of(entries), in_order = view_of(ordered);
  backend->tad_totals(all, nullptr, result.view().counts());

  const bool needs_gradient = hidden_grad || weight_grad;
  // The gradient at their logits is 0, but in a matrix product 0 times NaN would be NaN.
  OptionalTensor without_weight = needs_gradient ? OptionalTensor(ordered.without_weight()) : std::nullopt;
  if (without_weight && backend->host_reads_values() && !without_weight->any().item<bool>()) without_weight.reset();
  const auto clear_those_without_weight = [&](const at::Tensor& rows, int64_t begin) {
    if (without_weight) rows.masked_fill_(without_weight->slice(0, begin, begin + rows.size(0)), 0);
  };
  const auto options = student_hidden.options();
  at::Tensor losses = at::empty({entries.size()}, options.dtype(at::kDouble));
  at::Tensor grad_hidden = at::empty(hidden_grad ? student_hidden.sizes() : at::IntArrayRef{0}, options);
  at::Tensor grad_weight = weight_grad ? at::zeros(lm_head_weight.sizes(), lm_head_weight.options().dtype(real))
                                       : at::empty({0}, lm_head_weight.options());
  const at::Tensor weight_product = at::empty(grad_weight.sizes(), lm_head_weight.options());
  // The only logits: `chunk_rows` of them, student's and teacher's together, taken up by one chunk after the other.
  const int64_t most_rows = products.whole_tiles(std::max<int64_t>(2, std::min(chunk_rows, 2 * entries.size())));
  const at::Tensor memory = empty_kept({most_rows, lm_head_weight.size(0)}, options);
  const at::Tensor hidden_memory = at::empty({most_rows, lm_head_weight.size(1)}, options);
  for (int64_t begin = 0; begin < entries.size();) {
    // Half of a chunk is the teacher's. Where fewer distant entries are left, the others fill it.
    const int64_t half = std::max<int64_t>(1, chunk_rows / 2),
                  left = std::max<int64_t>(0, order.may_be_distant - begin);
    const int64_t distant = std::min(left, half);
    const int64_t most = left > half ? half : std::max(distant, chunk_rows - distant);
    const int64_t count = std::min(most, entries.size() - begin);
    const int64_t end = begin + count, rows = count + distant;

    // One product for student and teacher: the head is read once for both.
    const at::Tensor hidden = hidden_memory.narrow(0, 0, products.whole_tiles(rows));
    hidden.narrow(0, 0, count).copy_(order.chosen(student_hidden, begin, end));
    std::optional<ChunkTeacher> teacher;
    if (distant) {
      teacher.emplace(ordered.teacher_row_of_entries(begin, begin + distant), count, *teacher_hidden);
      hidden.narrow(0, count, distant).copy_(teacher->hidden);
    }
    hidden.narrow(0, rows, hidden.size(0) - rows).zero_();
    products.into(memory.narrow(0, 0, hidden.size(0)), hidden, lm_head_weight.t());

    const at::Tensor student_logits = memory.narrow(0, 0, count);
    TadLossArguments a = part_of(in_order, begin, end);
    a.student = rows_view(student_logits);
    if (teacher) {
      a.teacher = rows_view(memory.narrow(0, count, distant));
      a.teacher_rows = teacher->places.const_data_ptr<int64_t>();
    } else if (teacher_hidden) {
      a.teacher = rows_view(memory.narrow(0, 0, 0));  // an entry that is distant after all has no row
    }
    const at::Tensor losses_here = at::empty({count}, losses.options());
    const TadGradient in_place{mutable_rows_view(student_logits)};
    backend->tad_loss(
        a, losses_here.mutable_data_ptr<double>(), needs_gradient ? &in_place : nullptr, /*totals=*/nullptr);
    order.scatter(losses, begin, end, losses_here);
    // The gradient has taken the student's logits' place. What follows is cleared: where a row has an odd number of
    // bfloat16, a CPU's tile products (AMX) read the beginning of the next one too, and 0 times NaN would reach the
    // sum.
    if (products.tiled && (weight_grad || hidden_grad)) {
      const int64_t last = std::min(most_rows, products.whole_tiles(count) + 1);
      memory.narrow(0, count, last - count).zero_();
    }
    if (weight_grad) {
      clear_those_without_weight(hidden.narrow(0, 0, count), begin);
      products.into(weight_product, student_logits.t(), hidden.narrow(0, 0, count));
      grad_weight.add_(weight_product);
    }
    if (hidden_grad) {
      const at::Tensor whole_tiles = memory.narrow(0, 0, products.whole_tiles(count));
      products.into(hidden_memory.narrow(0, 0, whole_tiles.size(0)), whole_tiles, lm_head_weight);
      clear_those_without_weight(hidden_memory.narrow(0, 0, count), begin);
      order.scatter(grad_hidden, begin, end, hidden_memory.narrow(0, 0, count));
    }
    begin = end;
  }
  backend->tad_totals(all, losses.const_data_ptr<double>(), result.view());
  const at::Tensor of_entries = losses.view(entries.shape());
  return {result.loss,          result.ce,  result.kl,   result.near_count,
          result.distant_count, of_entries, grad_hidden, grad_weight.to(lm_head_weight.scalar_type())};
}

/// It as the dispatcher calls it: what TadEntries::of takes, one by one.
template <class EntriesOf>
struct LinearTadLossOperator;
template <class... Entry>
struct LinearTadLossOperator<TadEntries(const at::Tensor&, const char*, Entry...)> {
  static LinearLossResult loss(
      const at::Tensor& student_hidden, const OptionalTensor& teacher_hidden, const at::Tensor& lm_head_weight,
      Entry... entry, int64_t chunk_rows, bool hidden_grad, bool weight_grad) {
    const TadEntries entries = TadEntries::of(student_hidden, "student_hidden", entry...);
    return linear_loss_of(
        student_hidden, teacher_hidden, lm_head_weight, entries, chunk_rows, hidden_grad, weight_grad);
  }
};
using LinearTadLoss = LinearTadLossOperator<decltype(TadEntries::of)>;

std::tuple<at::Tensor, at::Tensor> linear_tad_loss_backward(
    const at::Tensor& grad_loss, const at::Tensor& grad_hidden, const at::Tensor& grad_weight,
    const at::Tensor& student_hidden, const at::Tensor& lm_head_weight) {
  for (const auto& [tensor, name] :
       {std::pair{&grad_hidden, "grad_hidden"}, std::pair{&grad_weight, "grad_weight"},
        std::pair{&student_hidden, "student_hidden"}, std::pair{&lm_head_weight, "lm_head_weight"}})
    check_same_device(*tensor, name, grad_loss, "grad_loss");
  return {grad_hidden * grad_loss, grad_weight * grad_loss};
}

class LinearTadLossFunction : public torch::autograd::Function<LinearTadLossFunction> {
 public:
  using Operator = decltype(LinearTadLoss::loss);
  static constexpr const char* kName = "tad_ext::linear_tad_loss";

  template <class... Arguments>
  static at::Tensor forward(AutogradContext* ctx, LinearLossResult* results, Arguments&... arguments) {
    const auto all = std::tie(arguments...);
    const at::Tensor &student_hidden = std::get<0>(all), &lm_head_weight = std::get<2>(all);
    constexpr size_t kLast = sizeof...(Arguments) - 1;
    bool &hidden_grad = std::get<kLast - 1>(all), &weight_grad = std::get<kLast>(all);
    hidden_grad |= student_hidden.requires_grad();
    weight_grad |= lm_head_weight.requires_grad();
    *results = below<LinearTadLossFunction>(arguments...);
    ctx->set_materialize_grads(false);
    save_arguments(ctx, std::get<6>(*results), std::get<7>(*results), student_hidden, lm_head_weight);
    ctx->saved_data["hidden_grad"] = hidden_grad;
    ctx->saved_data["weight_grad"] = weight_grad;
    return std::get<0>(*results);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    if (!outer[0].defined()) return gradients<LinearTadLossFunction>();
    static const auto op = dispatched<decltype(linear_tad_loss_backward)>("tad_ext::linear_tad_loss_backward");
    const auto [grad_hidden, grad_weight] = call_saved(op, *ctx, ctx->get_saved_variables(), outer[0]);
    return gradients<LinearTadLossFunction>(
        {{0, ctx->saved_data["hidden_grad"].toBool() ? grad_hidden : at::Tensor()},
         {2, ctx->saved_data["weight_grad"].toBool() ? grad_weight : at::Tensor()}});
  }
};

}  // namespace

TAD_KERNELS(m) {
  m.impl("linear_tad_loss", LinearTadLoss::loss);
  m.impl("linear_tad_loss_backward", linear_tad_loss_backward);
}

TAD_DERIVATIVES(m) {
  m.impl("linear_tad_loss", Differentiable<LinearTadLossFunction>::call);
  m.impl("linear_tad_loss_backward", once_only());
}

}  // namespace tad
