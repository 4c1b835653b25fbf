// Threads that work on one canvas together: on a GPU a warp or a block, on the CPU one thread. A team has rank(),
// size() and sync(). One that decides has sum, count, any, min, best and place as well, which return the same value to
// every thread, but for place. One that divides its work has parts() that decide, of which the calling thread's is
// part(), with rank part_rank().
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
  template <class T>
  T sum(T value) const {
    return value;
  }
  /// How many threads say yes.
  int64_t count(bool value) const { return value; }
  bool any(bool value) const { return value; }
  template <class T>
  T min(T value) const {
    return value;
  }
  Candidate best(const Candidate& value) const { return value; }
  /// How many threads of lower rank say yes.
  int64_t place(bool) const { return 0; }

  int64_t parts() const { return 1; }
  int64_t part_rank() const { return 0; }
  OneThread part() const { return {}; }
};

}  // namespace TAD_ISA
}  // namespace tad
