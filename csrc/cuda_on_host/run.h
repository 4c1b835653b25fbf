// How an emulated cluster runs: how its threads wait for each other, and who goes on when. A thread runs until it waits
// at a barrier, so a schedule is deterministic and a violation is found where it happens.
#pragma once

#include <mutex>

#include "block.h"

#if defined(__SANITIZE_THREAD__)
extern "C" {  // of ThreadSanitizer's runtime
void AnnotateIgnoreSyncBegin(const char* file, int line);
void AnnotateIgnoreSyncEnd(const char* file, int line);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif

namespace cuda_on_host {

// While it lives ThreadSanitizer takes no notice of what the emulation itself does: it orders no other memory access.
struct [[maybe_unused]] OrdersNothing {
#if defined(__SANITIZE_THREAD__)
  OrdersNothing() {
    AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~OrdersNothing() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
    AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  }
#endif
};

// The schedule says who goes on, perhaps the same thread.
void end_turn();

// Ends a generation of the barrier, whose mutex the caller holds.
void release(Barrier& barrier);

// Waits until this generation of the barrier is over.
void wait(Barrier& barrier, unsigned generation, std::unique_lock<Mutex>& lock);

// Waits until every living thread of the barrier has come to the same place. `divergence` names the failure to.
void arrive_and_wait(Barrier& barrier, Place place, const char* divergence);

}  // namespace cuda_on_host
