// Emulated mbarriers, which count bytes, and who sends these: bulk copies from global memory, and blocks of a cluster.
// What is on its way is nowhere until the first thread waits for it, and until then a bulk copy's target holds 0xFF;
// but under the schedule `reverse` it is there at once, and overwrites what somebody may still want to read.
#pragma once

#include <functional>

#include "run.h"

namespace cuda_on_host {

struct alignas(8) MBarrier {
  unsigned char opaque[8];
};

// mbarrier.init, for one arrival in each phase.
void mbarrier_init(MBarrier* barrier, std::source_location at = std::source_location::current());

// mbarrier.arrive.expect_tx: the phase's one arrival, and the bytes that it is over with.
void mbarrier_expect(MBarrier* barrier, size_t bytes, std::source_location at = std::source_location::current());

// mbarrier.try_wait.parity until it says yes: until a phase of this parity is over.
void mbarrier_wait(MBarrier* barrier, unsigned parity, std::source_location at = std::source_location::current());

// How often the next one was called in this process.
inline std::atomic<uint64_t> bulk_copies = 0;

// cp.async.bulk.shared.global.mbarrier::complete_tx::bytes
void bulk_copy(
    void* shared, const void* global, size_t bytes, MBarrier* barrier,
    std::source_location at = std::source_location::current());

// Called by the next one, where a test wants to know of it.
inline std::function<void(const void* global, size_t bytes)> when_prefetched;

// cp.async.bulk.prefetch.L2.global: changes nothing but speed.
void bulk_prefetch(const void* global, size_t bytes, std::source_location at = std::source_location::current());

// st.async.mbarrier::complete_tx::bytes to where `target` lies in block `rank` of the cluster, whose barrier, where
// `barrier` lies, counts the bytes. Orders nothing else.
void store_async(
    unsigned rank, void* target, const void* value, size_t bytes, MBarrier* barrier,
    std::source_location at = std::source_location::current());

}  // namespace cuda_on_host
