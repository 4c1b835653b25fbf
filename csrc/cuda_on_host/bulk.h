// Emulated bulk copies: cp.async.bulk from global into the block's shared memory, and the mbarrier that counts the
// bytes that have come. What is on its way holds 0xFF, and comes when the first thread waits for it.
#pragma once

#include "run.h"

namespace cuda_on_host {

struct alignas(8) BulkBarrier {
  unsigned char opaque[8];
};

// mbarrier.init, for one arrival in each phase.
void bulk_begin(BulkBarrier* barrier, std::source_location at = std::source_location::current());

// mbarrier.arrive.expect_tx: the phase's one arrival, and the bytes that it is over with.
void bulk_expect(BulkBarrier* barrier, size_t bytes, std::source_location at = std::source_location::current());

// cp.async.bulk.shared.global.mbarrier::complete_tx::bytes
void bulk_copy(
    void* shared, const void* global, size_t bytes, BulkBarrier* barrier,
    std::source_location at = std::source_location::current());

// mbarrier.try_wait.parity until it says yes: until a phase of this parity is over. Fails where that never happens: all
// bytes must have been asked for before.
void bulk_wait(BulkBarrier* barrier, unsigned parity, std::source_location at = std::source_location::current());

}  // namespace cuda_on_host
