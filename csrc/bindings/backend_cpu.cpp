// The CPU backend: rows over threads, each by a kernel of the best instruction set.
#include "../common/entries.h"
#include "../common/reveal.h"
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

class CpuBackend final : public Backend {
 public:
  bool host_reads_values() const override { return true; }

  void tad_loss(const TadLossArguments& a, double* losses, void* row_sums) const override {
    with_real(a.student.dtype, [&](auto real) {
      using Real = decltype(real);
      auto* sums = static_cast<TadRowSums<Real>*>(row_sums);
      const auto& kernels = cpu_kernels().of<Real>();
      parallel_rows(a.entries, [&](int64_t entry) { kernels.tad_loss(a, entry, losses + entry, sums + entry); });
    });
  }

  void tad_totals(const TadLossArguments& a, const double* losses, const TadTotals& out) const override {
    TAD_ISA::TadSums sums;
    for (int64_t i = 0; i < a.entries; ++i) sums.add(a, i, losses ? losses[i] : 0);
    with_real(a.student.dtype, [&](auto real) { TAD_ISA::write_totals<decltype(real)>(a, sums, out); });
  }

  void tad_gradient(const TadLossArguments& a, const void* row_sums, const void* grad_loss, const MutableRows& gradient)
      const override {
    with_real(a.student.dtype, [&](auto real) {
      using Real = decltype(real);
      const auto* sums = static_cast<const TadRowSums<Real>*>(row_sums);
      const double outer = grad_loss ? double(*static_cast<const Real*>(grad_loss)) : 1.0;
      const double near = TAD_ISA::denominator(a.near_denominator, 0);
      const double distant = TAD_ISA::denominator(a.distant_denominator, 0);
      const auto& kernels = cpu_kernels().of<Real>();
      write_gradient_rows(gradient, a.vocabulary, a.student_rows, a.entries, [&](int64_t entry, int64_t row, bool add) {
        const Real scale = Real(outer * TAD_ISA::gradient_scale(a, entry, near, distant));
        kernels.tad_gradient(a, entry, sums[entry], scale, gradient, row, add);
      });
    });
  }

  void log_softmax(const LogSoftmaxArguments& a, const MutableRows& out, void* normalizers) const override {
    with_real(a.logits.dtype, [&](auto real) {
      using Real = decltype(real);
      auto* of = static_cast<Real*>(normalizers);
      const auto& kernels = cpu_kernels().of<Real>();
      parallel_rows(a.entries, [&](int64_t entry) { kernels.log_softmax(a, entry, out, of + 2 * entry); });
    });
  }

  void log_softmax_gradient(
      const LogSoftmaxArguments& a, const void* normalizers, const Rows& grad_out,
      const MutableRows& gradient) const override {
    with_real(a.logits.dtype, [&](auto real) {
      using Real = decltype(real);
      const auto* of = static_cast<const Real*>(normalizers);
      const auto& kernels = cpu_kernels().of<Real>();
      write_gradient_rows(gradient, a.vocabulary, a.rows, a.entries, [&](int64_t entry, int64_t row, bool add) {
        kernels.log_softmax_gradient(a, entry, of + 2 * entry, grad_out, gradient, row, add);
      });
    });
  }

  void token_statistics(const TokenStatisticsArguments& a) const override {
    with_real(a.logits.dtype, [&](auto real) {
      const auto& kernels = cpu_kernels().of<decltype(real)>();
      parallel_rows(a.entries, [&](int64_t entry) { kernels.token_statistics(a, entry); });
    });
  }

  void commit_reveal(const RevealArguments& a) const override {
    for (int64_t row = 0; row < a.batch; ++row) TAD_ISA::reveal_row(TAD_ISA::OneThread(), a, row);
  }
};

}  // namespace

std::unique_ptr<Backend> cpu_backend() {
  return std::make_unique<CpuBackend>();
}

}  // namespace tad
