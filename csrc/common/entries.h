// The entries of the partitioned loss: which side of it each is on, which rows it reads, and what multiplies it.
#pragma once

#include <cmath>
#include <cstdint>

#include "arguments.h"
#include "platform.h"

namespace tad {
namespace TAD_ISA {

enum class EntryKind { kSilent, kNear, kDistant };

TAD_HOST_DEVICE EntryKind kind_of(const TadLossArguments& a, int64_t entry) {
  const int64_t steps = a.steps[entry];
  if (steps <= 0) return EntryKind::kSilent;
  return steps <= a.delta ? EntryKind::kNear : EntryKind::kDistant;
}

/// The row that an entry reads; a null list means its own number.
TAD_HOST_DEVICE int64_t row_of(const int64_t* rows, int64_t entry) {
  return rows ? rows[entry] : entry;
}

/// Whether row numbers and label of an entry, as far as its kind reads them, lie inside the tensors.
TAD_HOST_DEVICE bool indices_are_valid(const TadLossArguments& a, int64_t entry, EntryKind kind) {
  // Whatever the kind reads: a GPU asks for all of them at once.
  const int64_t student = row_of(a.student_rows, entry), teacher = row_of(a.teacher_rows, entry);
  const int64_t label = a.labels[entry];
  const bool has_label = (label >= 0) & (label < a.vocabulary);
  const bool has_teacher = (a.teacher.data == nullptr) | ((teacher >= 0) & (teacher < a.teacher.row_count));
  const bool has_student = (student >= 0) & (student < a.student.row_count);
  return has_student & (kind == EntryKind::kNear ? has_label : (kind == EntryKind::kSilent) | has_teacher);
}

TAD_HOST_DEVICE double weight_of(const TadLossArguments& a, int64_t entry) {
  return a.row_weight ? a.row_weight[entry] : 1.0;
}

/// The number a side's sum is divided by: a given one, or this call's own count; 0 counts as 1.
TAD_HOST_DEVICE double denominator(const double* given, int64_t own) {
  const double value = given ? *given : double(own);
  return value == 0 ? 1.0 : value;
}

/// d loss / d (the entry's own loss, KL without temperature^2). Where it is 0 so is the gradient, whatever the logits.
TAD_HOST_DEVICE double gradient_scale(const TadLossArguments& a, int64_t entry, EntryKind kind) {
  switch (kind) {
    case EntryKind::kNear: return a.ce_weight * weight_of(a, entry) / denominator(a.near_denominator, *a.near_count);
    case EntryKind::kDistant:
      return a.kl_weight * weight_of(a, entry) * a.temperature * a.temperature /
             denominator(a.distant_denominator, *a.distant_count);
    default: return 0;
  }
}

/// What is switched off adds nothing, even where it is infinite or NaN.
TAD_HOST_DEVICE double weighted(double weight, double part) {
  return weight == 0 ? 0 : weight * part;
}

/// Both sides' sums of weighted losses, and their numbers of entries.
struct TadSums {
  double ce = 0, kl = 0;
  int64_t near_count = 0, distant_count = 0;

  TAD_HOST_DEVICE void add(const TadLossArguments& a, int64_t entry, double loss) {
    const EntryKind kind = kind_of(a, entry);
    if (kind == EntryKind::kNear) {
      ce += weighted(weight_of(a, entry), loss);
      ++near_count;
    } else if (kind == EntryKind::kDistant) {
      kl += weighted(weight_of(a, entry), loss);
      ++distant_count;
    }
  }
};

TAD_HOST_DEVICE TadSums merge(const TadSums& a, const TadSums& b) {
  return {a.ce + b.ce, a.kl + b.kl, a.near_count + b.near_count, a.distant_count + b.distant_count};
}

/// The results of a whole call from its sums.
template <class Real>
TAD_HOST_DEVICE void write_totals(const TadLossArguments& a, const TadSums& sums, const TadTotals& out) {
  *out.near_count = sums.near_count;
  *out.distant_count = sums.distant_count;
  if (!out.loss) return;
  const double ce = sums.ce / denominator(a.near_denominator, sums.near_count);
  const double kl = sums.kl * a.temperature * a.temperature / denominator(a.distant_denominator, sums.distant_count);
  *static_cast<Real*>(out.loss) = Real(weighted(a.ce_weight, ce) + weighted(a.kl_weight, kl));
  *static_cast<Real*>(out.ce) = Real(ce);
  *static_cast<Real*>(out.kl) = Real(kl);
}

}  // namespace TAD_ISA
}  // namespace tad
