// Threads that work on one canvas together: on a GPU a warp or a block, on the CPU one thread. A team has rank(),
// size() and sync(); one that decides as well has sum, count, any, min, best and place, which return the same value to
// every thread, but for place.
#pragma once

#include <cstdint>

#include "row_math.h"

namespace tad {
namespace TAD_ISA {

/// An entry and its score. The higher score is better; a tie goes to the lower entry.
struct Candidate {
  float score = 0;
  int64_t entry = -1;

  TAD_HOST_DEVICE bool better_than(const Candidate& other) const {
    return precedes(score, entry, other.score, other.entry);
  }
};

struct OneThread {
  int64_t rank() const { return 0; }
  int64_t size() const { return 1; }
  void sync() const {}
  int64_t sum(int64_t value) const { return value; }
  /// How many threads say yes.
  int64_t count(bool value) const { return value; }
  bool any(bool value) const { return value; }
  int64_t min(int64_t value) const { return value; }
  Candidate best(const Candidate& value) const { return value; }
  /// How many threads of lower rank say yes.
  int64_t place(bool) const { return 0; }
};

}  // namespace TAD_ISA
}  // namespace tad
