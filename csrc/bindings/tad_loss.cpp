// tad_loss, tad_loss_gradient and scale_gradient.
#include <ATen/TensorSubclassLikeUtils.h>

#include <cmath>

#include "backend.h"
#include "checks.h"
#include "derivatives.h"
#include "kept_memory.h"
#include "registration.h"
#include "tad_entries.h"

namespace tad {

TAD_SCHEMAS(m) {
  const std::string arguments =
      std::string("Tensor student_logits, Tensor? teacher_logits, Tensor? student_rows, ") + TadEntries::kSchema;
  const std::string loss = "tad_loss(" + arguments +
                           ", bool with_gradient) -> (Tensor loss, Tensor ce, Tensor kl, "
                           "Tensor near_count, Tensor distant_count, Tensor entry_losses, Tensor gradient)";
  const std::string gradient = "tad_loss_gradient(Tensor grad_loss, " + arguments + ") -> Tensor";
  m.def(loss.c_str());
  m.def(gradient.c_str());
  m.def("scale_gradient(Tensor(a!) gradient, Tensor grad_loss) -> ()");
}

namespace {

/// What the kernels are told, checked, and the tensors it points to.
struct Loss {
  const at::Tensor& student_logits;
  at::Tensor student;  // as_rows
  OptionalTensor teacher;
  TadEntries entries;
  TadLossArguments arguments;

  Loss(
      const at::Tensor& student_logits, const OptionalTensor& teacher_logits, const OptionalTensor& student_rows,
      TadEntries given)
      : student_logits(student_logits), entries(std::move(given)) {
    check_logits(student_logits, "student_logits");
    student = as_rows(student_logits);
    entries.check_teacher(teacher_logits, "teacher_logits");
    if (teacher_logits) {
      check_logits(*teacher_logits, "teacher_logits");
      check_same_device(*teacher_logits, "teacher_logits", student_logits, "student_logits");
      TORCH_CHECK_VALUE(
          teacher_logits->size(-1) == student_logits.size(-1), "teacher_logits has shape ", teacher_logits->sizes(),
          ", expected a vocabulary of ", student_logits.size(-1), " like student_logits");
      teacher = as_rows(*teacher_logits);
    }
    entries.choose_student_rows(student_rows);
    const auto rows_shape = student_logits.sizes().slice(0, student_logits.dim() - 1);
    TORCH_CHECK_VALUE(
        student_rows || entries.shape().size() == 1 || entries.shape() == rows_shape, "labels has shape ",
        entries.shape(), ", expected ", rows_shape, " like the rows of student_logits");
    entries.check_rows(student.size(1), student.size(0), teacher ? std::optional(teacher->size(0)) : std::nullopt);
    arguments = entries.arguments();
    arguments.student = rows_view(student);
    if (teacher) arguments.teacher = rows_view(*teacher);
    arguments.vocabulary = student.size(1);
  }
};

/// A 0-d factor in the type of the sums.
at::Tensor checked_factor(const at::Tensor& factor, const char* name, const at::Tensor& like, const char* like_name) {
  TORCH_CHECK_VALUE(factor.numel() == 1, name, " has shape ", factor.sizes(), ", expected a 0-d tensor");
  check_same_device(factor, name, like, like_name);
  return factor.reshape({}).to(real_type(like));
}

/// Visits the logits and returns the gradient, in the shape and dtype of the student's logits.
at::Tensor visit_with_gradient(
    const Backend& backend, const Loss& loss, const TadTotals& totals, double* losses, const void* grad_loss) {
  const at::TensorOptions options = loss.student_logits.options().memory_format(std::nullopt);
  const at::Tensor gradient = empty_kept(loss.student_logits.sizes(), options);
  const TadGradient target{mutable_rows_view(as_rows(gradient)), grad_loss};
  backend.tad_loss(loss.arguments, losses, &target, &totals);
  return gradient;
}

using LossResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

LossResult loss_of(const Loss& loss, bool with_gradient) {
  const auto backend = backend_for(loss.student_logits);
  const TadResult result(loss.student);
  const auto options = loss.student.options().dtype(at::kDouble);
  // A visit by rows of the gradient does not come to entries whose row is not there.
  const bool by_rows = with_gradient && loss.arguments.student_rows;
  const at::Tensor losses =
      by_rows ? at::full(loss.entries.shape(), NAN, options) : at::empty(loss.entries.shape(), options);
  double* const loss_of_entry = losses.mutable_data_ptr<double>();
  const TadTotals totals = result.view();
  at::Tensor gradient;
  if (with_gradient) {
    gradient = visit_with_gradient(*backend, loss, totals, loss_of_entry, nullptr);
  } else {
    gradient = at::empty({0}, loss.student_logits.options().memory_format(std::nullopt));
    backend->tad_loss(loss.arguments, loss_of_entry, nullptr, &totals);
  }
  return {result.loss, result.ce, result.kl, result.near_count, result.distant_count, losses, gradient};
}

at::Tensor gradient_of(const at::Tensor& grad_loss, const Loss& loss) {
  const at::Tensor outer = checked_factor(grad_loss, "grad_loss", loss.student_logits, "student_logits");
  const auto backend = backend_for(loss.student_logits);
  const TadResult counts(loss.student);
  return visit_with_gradient(*backend, loss, counts.view().counts(), nullptr, outer.const_data_ptr());
}

/// Both as the dispatcher calls them: what TadEntries::of takes, one by one.
template <class EntriesOf>
struct TadLossOperators;
template <class... Entry>
struct TadLossOperators<TadEntries(const at::Tensor&, const char*, Entry...)> {
  static LossResult loss(
      const at::Tensor& student_logits, const OptionalTensor& teacher_logits, const OptionalTensor& student_rows,
      Entry... entry, bool with_gradient) {
    TadEntries entries = TadEntries::of(student_logits, "student_logits", entry...);
    return loss_of({student_logits, teacher_logits, student_rows, std::move(entries)}, with_gradient);
  }
  static at::Tensor gradient(
      const at::Tensor& grad_loss, const at::Tensor& student_logits, const OptionalTensor& teacher_logits,
      const OptionalTensor& student_rows, Entry... entry) {
    TadEntries entries = TadEntries::of(student_logits, "student_logits", entry...);
    return gradient_of(grad_loss, {student_logits, teacher_logits, student_rows, std::move(entries)});
  }
};
using TadLoss = TadLossOperators<decltype(TadEntries::of)>;

void scale_gradient(at::Tensor& gradient, const at::Tensor& grad_loss) {
  check_logits(gradient, "gradient");
  TORCH_CHECK_VALUE(
      gradient.is_contiguous(), "gradient has strides ", gradient.strides(), ", expected contiguous memory");
  const at::Tensor factor = checked_factor(grad_loss, "grad_loss", gradient, "gradient");
  if (gradient.numel() > 0) backend_for(gradient)->scale(gradient, factor);
}

class TadLossFunction : public torch::autograd::Function<TadLossFunction> {
 public:
  using Operator = decltype(TadLoss::loss);
  static constexpr const char* kName = "tad_ext::tad_loss";

  template <class... Arguments>
  static at::Tensor forward(AutogradContext* ctx, LossResult* results, const Arguments&... arguments) {
    *results = below<TadLossFunction>(arguments...);
    const bool with_gradient = std::get<sizeof...(Arguments) - 1>(std::tie(arguments...));
    ctx->set_materialize_grads(false);
    save_arguments(ctx, arguments...);
    ctx->saved_data["in_forward"] = with_gradient;
    if (with_gradient) {
      ctx->saved_data["gradient"] = std::get<6>(*results);
      ctx->saved_data["version"] = int64_t(std::get<6>(*results)._version());
    }
    return std::get<0>(*results);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& outer) {
    // First, whether they are needed or not: logits that were changed are noticed here, a checkpoint brings them back.
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& grad_loss = outer[0];
    if (!grad_loss.defined()) return gradients<TadLossFunction>();
    const bool in_forward = ctx->saved_data["in_forward"].toBool();
    if (!in_forward || at::GradMode::is_enabled())  // the latter: so that double backward is noticed
      return gradients<TadLossFunction>({{0, recomputed(*ctx, saved, grad_loss)}});
    // The gradient that forward left is given away, once: whoever gets it may write into it. A retained graph computes
    // it again, in the same way.
    c10::IValue& left = ctx->saved_data["gradient"];
    const bool untouched = left.isTensor() && left.toTensor()._version() == ctx->saved_data["version"].toInt();
    at::Tensor gradient = untouched ? left.toTensor() : recomputed(*ctx, saved, at::ones_like(grad_loss));
    left = c10::IValue();
    // Where others look on, such as a compiler that traces: what it makes of this must not write into what is saved.
    if (at::areAnyTensorSubclassLike({gradient, grad_loss}))
      return gradients<TadLossFunction>({{0, gradient * grad_loss}});
    gradient.unsafeGetTensorImpl()->bump_version();  // compiled autograd brings `left` back
    static const auto scale = dispatched<decltype(scale_gradient)>("tad_ext::scale_gradient");
    scale.call(gradient, grad_loss);
    return gradients<TadLossFunction>({{0, gradient}});
  }

 private:
  static at::Tensor recomputed(const AutogradContext& ctx, const variable_list& saved, const at::Tensor& grad_loss) {
    static const auto op = dispatched<decltype(TadLoss::gradient)>("tad_ext::tad_loss_gradient");
    return call_saved(op, ctx, saved, grad_loss);
  }
};

}  // namespace

TAD_KERNELS(m) {
  m.impl("tad_loss", TadLoss::loss);
  m.impl("tad_loss_gradient", TadLoss::gradient);
  m.impl("scale_gradient", scale_gradient);
}

TAD_DERIVATIVES(m) {
  m.impl("tad_loss", Differentiable<TadLossFunction>::call);
  m.impl("tad_loss_gradient", once_only());
  m.impl("scale_gradient", without_derivative());
}

}  // namespace tad
