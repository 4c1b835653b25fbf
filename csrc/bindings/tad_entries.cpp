#include "tad_entries.h"

#include "../common/entries.h"
#include "backend.h"

namespace tad {

/// A denominator as one float64 on the entries' device.
static at::Tensor denominator_tensor(const at::Tensor& given, const char* name, const at::Tensor& like) {
  TORCH_CHECK_VALUE(given.numel() == 1, name, " has shape ", given.sizes(), ", expected a 0-d tensor");
  if (values_may_be_read(given)) {
    const double value = given.item<double>();
    TORCH_CHECK_VALUE(value >= 0 && std::isfinite(value), name, " is ", value, ", expected a finite number >= 0");
    if (given.device() != like.device()) return at::full({}, value, like.options().dtype(at::kDouble));
  }
  check_same_device(given, name, like, "labels");
  return given.reshape({}).to(at::kDouble);
}

/// A row number for each entry, as the kernels want them.
static OptionalTensor checked_rows(const OptionalTensor& rows, const char* name, const at::Tensor& labels) {
  if (!rows) return std::nullopt;
  check_int64(*rows, name);
  check_same_device(*rows, name, labels, "labels");
  check_count(*rows, name, labels.numel());
  return flattened(rows);
}

TadEntries TadEntries::of(
    const at::Tensor& like, const char* like_name, const at::Tensor& labels, const at::Tensor& steps_to_reveal,
    int64_t delta, double ce_weight, double kl_weight, double temperature, const OptionalTensor& row_weight,
    const OptionalTensor& teacher_rows, const OptionalTensor& near_count, const OptionalTensor& distant_count) {
  TORCH_CHECK_VALUE(delta >= 0, "delta is ", delta, ", expected an integer >= 0");
  check_temperature(temperature);
  for (const auto& [weight, name] : {std::pair{ce_weight, "ce_weight"}, std::pair{kl_weight, "kl_weight"}})
    TORCH_CHECK_VALUE(std::isfinite(weight), name, " is ", weight, ", expected a finite number");
  check_int64(labels, "labels");
  check_same_device(labels, "labels", like, like_name);
  check_int64(steps_to_reveal, "steps_to_reveal");
  check_same_device(steps_to_reveal, "steps_to_reveal", like, like_name);
  TORCH_CHECK_VALUE(
      steps_to_reveal.sizes() == labels.sizes(), "steps_to_reveal has shape ", steps_to_reveal.sizes(), ", expected ",
      labels.sizes(), " like labels");
  TadEntries entries;
  entries.numbers_.delta = delta;
  entries.numbers_.ce_weight = ce_weight;
  entries.numbers_.kl_weight = kl_weight;
  entries.numbers_.temperature = temperature;
  entries.shape_ = labels.sizes();
  entries.labels_ = labels.reshape({-1}).contiguous();
  entries.steps_ = steps_to_reveal.reshape({-1}).contiguous();
  entries.teacher_rows_ = checked_rows(teacher_rows, "teacher_rows", labels);
  if (row_weight) {
    TORCH_CHECK_TYPE(
        row_weight->is_floating_point(), "row_weight has dtype ", row_weight->scalar_type(),
        ", expected floating point");
    check_same_device(*row_weight, "row_weight", like, like_name);
    check_count(*row_weight, "row_weight", labels.numel());
    entries.row_weight_ = row_weight->reshape({-1}).to(at::kDouble).contiguous();
  }
  if (near_count) entries.near_count_ = denominator_tensor(*near_count, "near_count", labels);
  if (distant_count) entries.distant_count_ = denominator_tensor(*distant_count, "distant_count", labels);
  return entries;
}

void TadEntries::choose_student_rows(const OptionalTensor& rows) {
  student_rows_ = checked_rows(rows, "student_rows", labels_);
}

void TadEntries::check_teacher(const OptionalTensor& teacher, const char* name) const {
  TORCH_CHECK_VALUE(
      teacher || numbers_.kl_weight == 0, name, " is None, expected rows because kl_weight is ", numbers_.kl_weight);
}

void TadEntries::check_rows(int64_t vocabulary, int64_t student_rows, std::optional<int64_t> teacher_rows) const {
  TORCH_CHECK_VALUE(
      student_rows_ || size() == student_rows, "the student has ", student_rows, " rows, expected ", size(),
      ", one per label, unless student_rows says which");
  TORCH_CHECK_VALUE(
      teacher_rows_ || !teacher_rows || size() == *teacher_rows, "the teacher has ", teacher_rows.value_or(0),
      " rows, expected ", size(), ", one per label, unless teacher_rows says which");
  if (!values_may_be_read(labels_)) return;
  TadEntries here = *this;
  for (at::Tensor* tensor : {&here.labels_, &here.steps_}) *tensor = tensor->cpu();
  for (OptionalTensor* rows : {&here.student_rows_, &here.teacher_rows_})
    if (*rows) *rows = (*rows)->cpu();
  const TadLossArguments a = here.arguments();
  for (int64_t i = 0; i < size(); ++i) {
    const auto kind = TAD_ISA::kind_of(a, i);
    TORCH_CHECK_VALUE(
        kind != TAD_ISA::EntryKind::kNear || (a.labels[i] >= 0 && a.labels[i] < vocabulary), "labels[", i, "] is ",
        a.labels[i], ", expected 0 <= label < ", vocabulary, " (the vocabulary)");
    const int64_t student = TAD_ISA::row_of(a.student_rows, i), teacher = TAD_ISA::row_of(a.teacher_rows, i);
    TORCH_CHECK_VALUE(
        student >= 0 && student < student_rows, "student_rows[", i, "] is ", student, ", expected 0 <= row < ",
        student_rows, " (rows of student_logits)");
    TORCH_CHECK_VALUE(
        !teacher_rows || kind != TAD_ISA::EntryKind::kDistant || (teacher >= 0 && teacher < *teacher_rows),
        "teacher_rows[", i, "] is ", teacher, ", expected 0 <= row < ", teacher_rows.value_or(0),
        " (rows of the teacher) because entry ", i, " is distant");
  }
}

at::Tensor TadEntries::without_weight() const {
  at::Tensor result = steps_.le(0);
  if (numbers_.ce_weight == 0) result.logical_or_(steps_.le(numbers_.delta));
  if (numbers_.kl_weight == 0) result.logical_or_(steps_.gt(numbers_.delta));
  if (row_weight_) result.logical_or_(row_weight_->eq(0));
  return result.unsqueeze(1);
}

at::Tensor TadEntries::teacher_row_of_entries(int64_t begin, int64_t end) const {
  return teacher_rows_ ? teacher_rows_->slice(0, begin, end) : at::arange(begin, end, labels_.options());
}

TadEntries TadEntries::reordered(const at::Tensor& order) const {
  TadEntries result = *this;
  for (at::Tensor* tensor : {&result.labels_, &result.steps_}) *tensor = tensor->index_select(0, order);
  if (row_weight_) result.row_weight_ = row_weight_->index_select(0, order);
  result.teacher_rows_ = teacher_rows_ ? teacher_rows_->index_select(0, order) : order;
  return result;
}

TadLossArguments TadEntries::arguments() const {
  TadLossArguments a = numbers_;
  a.entries = size();
  a.labels = labels_.const_data_ptr<int64_t>();
  a.steps = steps_.const_data_ptr<int64_t>();
  a.row_weight = pointer_or_null<double>(row_weight_);
  a.student_rows = pointer_or_null<int64_t>(student_rows_);
  a.teacher_rows = pointer_or_null<int64_t>(teacher_rows_);
  a.near_denominator = pointer_or_null<double>(near_count_);
  a.distant_denominator = pointer_or_null<double>(distant_count_);
  return a;
}

TadResult::TadResult(const at::Tensor& like) {
  const auto reals = like.options().dtype(real_type(like)), ints = like.options().dtype(at::kLong);
  for (at::Tensor* result : {&loss, &ce, &kl}) *result = at::empty({}, reals);
  for (at::Tensor* result : {&near_count, &distant_count}) *result = at::empty({}, ints);
}

TadTotals TadResult::view() const {
  return {
      loss.mutable_data_ptr(), ce.mutable_data_ptr(), kl.mutable_data_ptr(), near_count.mutable_data_ptr<int64_t>(),
      distant_count.mutable_data_ptr<int64_t>()};
}

}  // namespace tad
