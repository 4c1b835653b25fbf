// The CPU backend: rows, or slices of rows, over threads, each by a kernel of the best instruction set.
#include "../common/eligible_positions.h"
#include "../common/entries.h"
#include "../common/reveal.h"
#include "../common/select.h"
#include "../common/statistics.h"
#include "../cpu/kernels.h"
#include "backend.h"
#include "parallel.h"

namespace tad {
namespace {

template <class Work>
void with_real(DType dtype, const Work& work) {
  if (dtype == DType::kFloat64)
    work(double());
  else
    work(float());
}

/// Memory of the calling thread for the exponentials of a pair of rows: two rows of Real, kept from call to call, since
/// fresh pages would cost more than the arithmetic on them. In whole cache lines: vectors that straddle two are slower.
template <class Real>
Exponentials<Real> own_exponentials(int64_t vocabulary) {
  constexpr size_t kInLine = 64 / sizeof(Real);
  struct alignas(64) Line {
    Real numbers[kInLine];
  };
  thread_local std::vector<Line> memory;
  const size_t blocks = (vocabulary + kBlock - 1) / kBlock, columns = blocks * kBlock;
  const size_t lines = (2 * (columns + blocks) + kInLine - 1) / kInLine;
  if (memory.size() < lines) memory.resize(lines);
  Real* data = memory.data()->numbers;
  return {data, data + columns, data + 2 * columns, data + 2 * columns + blocks};
}

class CpuBackend final : public Backend {
 public:
  bool host_reads_values() const override { return true; }

  void tad_loss(
      const TadLossArguments& a, double* losses, const TadGradient* gradient, const TadTotals* totals) const override {
    TadLossArguments counted = a;
    if (totals && gradient) {
      tad_totals(a, nullptr, totals->counts());
      counted.near_count = totals->near_count;
      counted.distant_count = totals->distant_count;
    }
    visit(counted, losses, gradient);
    if (totals && totals->loss) tad_totals(a, losses, *totals);
  }

  void tad_totals(const TadLossArguments& a, const double* losses, const TadTotals& out) const override {
    TAD_ISA::TadSums sums;
    for (int64_t i = 0; i < a.entries; ++i) sums.add(a, i, losses ? losses[i] : 0);
    with_real(a.student.dtype, [&](auto real) { TAD_ISA::write_totals<decltype(real)>(a, sums, out); });
  }

  void scale(at::Tensor& gradient, const at::Tensor& factor) const override {
    if (factor.item<double>() != 1) gradient.mul_(factor);
  }

  void log_softmax(const LogSoftmaxArguments& a, const MutableRows& out, void* normalizers) const override {
    with_real(a.logits.dtype, [&](auto real) {
      using Real = decltype(real);
      auto* of = static_cast<Real*>(normalizers);
      const auto& kernels = cpu_kernels().of<Real>();
      const int64_t slices = slices_of(a.vocabulary);
      parallel_rows(a.entries, [&](int64_t entry, const auto& each_slice) {
        std::vector<SliceSums> sums(slices);
        each_slice(slices, [&](int64_t slice) { kernels.softmax_sums(a, entry, slice, &sums[slice]); });
        kernels.softmax_normalizer(a, sums.data(), of + 2 * entry);
        each_slice(slices, [&](int64_t slice) { kernels.log_softmax(a, entry, slice, of + 2 * entry, out); });
      });
    });
  }

  void log_softmax_gradient(
      const LogSoftmaxArguments& a, const void* normalizers, const Rows& grad_out,
      const MutableRows& gradient) const override {
    with_real(a.logits.dtype, [&](auto real) {
      using Real = decltype(real);
      const auto* of = static_cast<const Real*>(normalizers);
      const auto& kernels = cpu_kernels().of<Real>();
      const int64_t slices = slices_of(a.vocabulary);
      write_gradient_rows(
          gradient.row_count, slices, a.rows, a.entries,
          [&](int64_t entry, int64_t row, bool add, const auto& each_slice) {
            std::vector<double> sums(slices);
            each_slice(slices, [&](int64_t slice) { sums[slice] = kernels.gradient_sum(a, entry, slice, grad_out); });
            double total = 0;
            for (double sum : sums) total += sum;
            each_slice(slices, [&](int64_t slice) {
              kernels.log_softmax_gradient(a, entry, slice, of + 2 * entry, grad_out, total, gradient, row, add);
            });
          },
          [&](int64_t row, int64_t slice) { kernels.zero(gradient, a.vocabulary, row, slice); });
    });
  }

  void token_statistics(const TokenStatisticsArguments& a) const override {
    with_real(a.logits.dtype, [&](auto real) {
      const auto& kernels = cpu_kernels().of<decltype(real)>();
      const int64_t slices = slices_of(a.vocabulary);
      parallel_rows(a.entries, [&](int64_t entry, const auto& each_slice) {
        if (TAD_ISA::row_of_entry(a, entry) < 0) return TAD_ISA::write_empty_statistics(a, entry);
        std::vector<SliceStatistics> found(slices);
        each_slice(slices, [&](int64_t slice) {
          const SliceStatistics* before = each_slice.kInOrder && slice > 0 ? &found[slice - 1] : nullptr;
          kernels.slice_statistics(a, entry, slice, before, &found[slice]);
        });
        kernels.token_statistics(a, entry, found.data());
      });
    });
  }

  void truncate_logits(const TruncationArguments& a) const override {
    with_real(a.logits.dtype, [&](auto real) {
      using Real = decltype(real);
      const auto& kernels = cpu_kernels().of<Real>();
      parallel_each(a.logits.row_count, [&](int64_t row) {
        kernels.truncate_logits(a, row, own_exponentials<Real>(a.vocabulary).student);
      });
    });
  }

  void select_reveal(
      const TokenStatisticsArguments& statistics, const SelectionArguments& selection,
      const RevealArguments& reveal) const override {
    token_statistics(statistics);
    for (int64_t row = 0; row < reveal.batch; ++row) TAD_ISA::select_row(TAD_ISA::OneThread(), selection, row);
    commit_reveal(reveal);
  }

  void commit_reveal(const RevealArguments& a) const override {
    for (int64_t row = 0; row < a.batch; ++row) TAD_ISA::reveal_row(TAD_ISA::OneThread(), a, row);
  }

  void eligible_positions(const EligiblePositionsArguments& a) const override {
    for (int64_t row = 0; row < a.batch; ++row) TAD_ISA::eligible_positions_row(TAD_ISA::OneThread(), a, row);
  }

 private:
  static void visit(const TadLossArguments& a, double* losses, const TadGradient* gradient) {
    with_real(a.student.dtype, [&](auto real) {
      using Real = decltype(real);
      const auto& kernels = cpu_kernels().of<Real>();
      const int64_t slices = slices_of(a.vocabulary);
      const auto sums_of = [&](int64_t entry, const Exponentials<Real>* kept, const auto& each_slice) {
        std::vector<SliceSums> sums(slices);
        each_slice(slices, [&](int64_t slice) { kernels.tad_sums(a, entry, slice, kept, &sums[slice]); });
        const double loss = kernels.tad_loss(a, entry, sums.data());
        if (losses) losses[entry] = loss;
        return sums[0];
      };
      if (!gradient)
        return parallel_rows(
            a.entries, [&](int64_t entry, const auto& each_slice) { sums_of(entry, nullptr, each_slice); });
      const double outer = gradient->grad_loss ? double(*static_cast<const Real*>(gradient->grad_loss)) : 1.0;
      write_gradient_rows(
          gradient->rows.row_count, slices, a.student_rows, a.entries,
          [&](int64_t entry, int64_t row, bool add, const auto& each_slice) {
            const Exponentials<Real> kept = own_exponentials<Real>(a.vocabulary);
            const SliceSums sums = sums_of(entry, &kept, each_slice);
            const double scale = outer * TAD_ISA::gradient_scale(a, entry, TAD_ISA::kind_of(a, entry));
            each_slice(slices, [&](int64_t slice) {
              kernels.tad_gradient(a, entry, slice, kept, sums, scale, gradient->rows, row, add);
            });
          },
          [&](int64_t row, int64_t slice) { kernels.zero(gradient->rows, a.vocabulary, row, slice); });
    });
  }
};

}  // namespace

std::unique_ptr<Backend> cpu_backend() {
  return std::make_unique<CpuBackend>();
}

}  // namespace tad
