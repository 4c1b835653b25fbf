#include "kept_memory.h"

#include <ATen/Context.h>
#include <ATen/native/TensorFactories.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <mutex>
#include <vector>

namespace tad {
namespace {

constexpr size_t kLargeBytes = 1 << 20;  // below, an allocator keeps the pages itself
constexpr size_t kMostPieces = 2;        // a result and its gradient

struct Piece {
  void* data;
  size_t bytes;
};

/// Memory in pages of 2 MB where the system has them: writing a gradient row by row touches a small page every 4 KB.
Piece fresh(size_t bytes) {
  void* data = c10::alloc_cpu(bytes);
#if defined(__linux__)
  constexpr uintptr_t kPage = 2 << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kPage - 1) / kPage * kPage;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / kPage * kPage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // no matter if refused
#endif
  return {data, bytes};
}

class Keeper {
 public:
  /// A kept piece that fits without wasting a quarter of it, or a new one.
  Piece take(size_t bytes) {
    {
      const std::lock_guard lock(mutex_);
      for (size_t i = 0; i < pieces_.size(); ++i) {
        const Piece piece = pieces_[i];
        if (piece.bytes < bytes || piece.bytes - bytes > bytes / 4) continue;
        pieces_.erase(pieces_.begin() + int64_t(i));
        return piece;
      }
    }
    return fresh(bytes);
  }

  void give_back(Piece piece) {
    {
      const std::lock_guard lock(mutex_);
      pieces_.push_back(piece);
      if (pieces_.size() <= kMostPieces) return;
      piece = pieces_.front();
      pieces_.erase(pieces_.begin());
    }
    c10::free_cpu(piece.data);
  }

 private:
  std::mutex mutex_;
  std::vector<Piece> pieces_;  // in the order in which they were let go
};

/// Never destroyed: tensors may outlive everything else.
Keeper& keeper() {
  static Keeper& keeper = *new Keeper;
  return keeper;
}

/// So that PyTorch's profiler sees the tensor's memory come and go.
void report(void* data, int64_t bytes) {
  if (c10::memoryProfilingEnabled()) c10::reportMemoryUsageToProfiler(data, bytes, 0, 0, c10::Device(c10::kCPU));
}

}  // namespace

at::Tensor empty_kept(at::IntArrayRef sizes, const at::TensorOptions& options) {
  const size_t bytes = size_t(c10::multiply_integers(sizes)) * options.dtype().itemsize();
  if (!options.device().is_cpu() || bytes < kLargeBytes) return at::empty(sizes, options);
  const Piece piece = keeper().take(bytes);
  report(piece.data, int64_t(bytes));
  const auto give_back = [piece, bytes](void* data) {
    report(data, -int64_t(bytes));
    keeper().give_back(piece);
  };
  at::Tensor result = at::for_blob(piece.data, sizes).deleter(give_back).options(options).make_tensor();
  auto& context = at::globalContext();  // as at::empty does, for those who look for memory that is never written
  if (context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())
    at::native::fill_empty_deterministic_(result);
  return result;
}

}  // namespace tad
