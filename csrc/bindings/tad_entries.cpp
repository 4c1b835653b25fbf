#include "tad_entries.h"

#include "checks.h"

namespace tad {

TadEntries::TadEntries(
    const at::Tensor& labels, const at::Tensor& steps_to_reveal, const std::optional<at::Tensor>& row_weight,
    const std::optional<at::Tensor>& student_rows, const std::optional<at::Tensor>& teacher_rows,
    const TadWeights& weights)
    : weights_(weights) {
  TORCH_CHECK_VALUE(weights.delta >= 0, "delta is ", weights.delta, ", expected an integer >= 0");
  check_temperature(weights.temperature);
  TORCH_CHECK_VALUE(std::isfinite(weights.ce_weight), "ce_weight is ", weights.ce_weight, ", expected a finite number");
  TORCH_CHECK_VALUE(std::isfinite(weights.kl_weight), "kl_weight is ", weights.kl_weight, ", expected a finite number");
  check_int64(labels, "labels");
  check_int64(steps_to_reveal, "steps_to_reveal");
  TORCH_CHECK_VALUE(
      steps_to_reveal.sizes() == labels.sizes(), "steps_to_reveal has shape ", steps_to_reveal.sizes(), ", expected ",
      labels.sizes(), " like labels");
  labels_ = labels.reshape({-1}).contiguous();
  steps_ = steps_to_reveal.reshape({-1}).contiguous();
  for (const auto& [rows, name] :
       {std::pair{&student_rows, "student_rows"}, std::pair{&teacher_rows, "teacher_rows"}}) {
    if (!*rows) continue;
    check_int64(**rows, name);
    check_count(**rows, name, labels.numel());
  }
  student_rows_ = flattened(student_rows);
  teacher_rows_ = flattened(teacher_rows);
  if (row_weight) {
    TORCH_CHECK_TYPE(
        row_weight->is_floating_point(), "row_weight has dtype ", row_weight->scalar_type(),
        ", expected floating point");
    check_count(*row_weight, "row_weight", labels.numel());
    row_weight_ = row_weight->reshape({-1}).to(at::kDouble).contiguous();
  }
  for (int64_t i = 0; i < size(); ++i) {
    near_ += is_near(i);
    distant_ += is_distant(i);
  }
}

void TadEntries::check_indices(int64_t vocabulary, int64_t student_rows, std::optional<int64_t> teacher_rows) const {
  const int64_t* labels = labels_.const_data_ptr<int64_t>();
  const int64_t* students = this->student_rows();
  TORCH_CHECK_VALUE(
      students || size() == student_rows, "the student has ", student_rows, " rows, expected ", size(),
      ", one per label, unless student_rows says which");
  TORCH_CHECK_VALUE(
      teacher_rows_ || !teacher_rows || size() == *teacher_rows, "the teacher has ", teacher_rows.value_or(0),
      " rows, expected ", size(), ", one per label, unless teacher_rows says which");
  for (int64_t i = 0; i < size(); ++i) {
    TORCH_CHECK_VALUE(
        !is_near(i) || (labels[i] >= 0 && labels[i] < vocabulary), "labels[", i, "] is ", labels[i],
        ", expected 0 <= label < ", vocabulary, " (the vocabulary)");
    TORCH_CHECK_VALUE(
        !students || (students[i] >= 0 && students[i] < student_rows), "student_rows[", i, "] is ",
        students ? students[i] : 0, ", expected 0 <= row < ", student_rows, " (rows of student_logits)");
    const int64_t teacher = teacher_row(i);
    TORCH_CHECK_VALUE(
        !teacher_rows || !is_distant(i) || (teacher >= 0 && teacher < *teacher_rows), "teacher_rows[", i, "] is ",
        teacher, ", expected 0 <= row < ", teacher_rows.value_or(0), " (rows of the teacher) because entry ", i,
        " is distant");
  }
}

const int64_t* TadEntries::student_rows() const {
  return pointer_or_null<int64_t>(student_rows_);
}

double TadEntries::gradient_scale(int64_t entry, double near_denominator, double distant_denominator) const {
  if (is_near(entry)) return weights_.ce_weight * weight(entry) / near_denominator;
  if (is_distant(entry))
    return weights_.kl_weight * weight(entry) * weights_.temperature * weights_.temperature / distant_denominator;
  return 0;
}

TadLossArguments TadEntries::arguments() const {
  TadLossArguments a;
  a.labels = labels_.const_data_ptr<int64_t>();
  a.steps = steps_.const_data_ptr<int64_t>();
  a.student_rows = student_rows();
  a.teacher_rows = pointer_or_null<int64_t>(teacher_rows_);
  a.delta = weights_.delta;
  a.temperature = weights_.temperature;
  return a;
}

/// A part that is switched off adds nothing, even where it is infinite.
static double weighted(double weight, double part) {
  return weight == 0 ? 0 : weight * part;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> TadEntries::reduce(
    const at::Tensor& losses, double near_denominator, double distant_denominator, at::ScalarType dtype) const {
  const double* loss_of = losses.const_data_ptr<double>();
  double ce = 0, kl = 0;
  for (int64_t i = 0; i < size(); ++i) {
    if (is_near(i)) ce += weight(i) * loss_of[i];
    if (is_distant(i)) kl += weight(i) * loss_of[i];
  }
  ce /= near_denominator;
  kl *= weights_.temperature * weights_.temperature / distant_denominator;
  const auto options = losses.options().dtype(dtype);
  return {
      at::full({}, weighted(weights_.ce_weight, ce) + weighted(weights_.kl_weight, kl), options),
      at::full({}, ce, options), at::full({}, kl, options)};
}

double denominator(const std::optional<at::Tensor>& given, const char* name, int64_t own) {
  if (!given) return own > 0 ? double(own) : 1.0;
  TORCH_CHECK_VALUE(given->numel() == 1, name, " has shape ", given->sizes(), ", expected a 0-d tensor");
  const double value = given->item<double>();
  TORCH_CHECK_VALUE(value >= 0 && std::isfinite(value), name, " is ", value, ", expected a finite number >= 0");
  return value > 0 ? value : 1.0;
}

at::Tensor count_tensor(int64_t count) {
  return at::full({}, count, at::TensorOptions().dtype(at::kLong));
}

}  // namespace tad
