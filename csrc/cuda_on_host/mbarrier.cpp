#include "mbarrier.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

#include "cluster.h"

namespace cuda_on_host {

namespace {

[[noreturn]] void fail_at(std::source_location at, const char* operation, const char* what) {
  current->place = {operation, at};
  fail(what, {current});
}

ByteCounter& counter_of(Block& block, const void* barrier, std::source_location at, const char* operation) {
  const std::lock_guard lock(block.counters_mutex);
  const auto found = block.counters.find(barrier);
  if (found == block.counters.end()) fail_at(at, operation, "an mbarrier that is not initialized");
  return found->second;
}

// Ends the phase where all bytes are there that it expects. The caller holds the mutex.
void end_phase(ByteCounter& counter, std::source_location at, const char* operation) {
  if (!counter.expects || counter.coming_bytes < counter.expected) return;
  if (counter.coming_bytes > counter.expected) fail_at(at, operation, "more bytes than an mbarrier expects");
  for (Transfer& transfer : counter.coming) counter.there.push_back(std::move(transfer));
  counter.coming.clear();
  counter.coming_bytes = counter.expected = 0;
  counter.expects = false;
  release(counter);
}

void deliver(const Transfer& transfer) {
  std::memcpy(transfer.target, transfer.source ? transfer.source : transfer.value.data(), transfer.bytes);
}

void send(ByteCounter& counter, Transfer transfer, std::source_location at, const char* operation) {
  const std::lock_guard lock(counter.mutex);
  if (current->block->cluster.sends_at_once) deliver(transfer);
  counter.coming_bytes += transfer.bytes;
  counter.coming.push_back(std::move(transfer));
  end_phase(counter, at, operation);
}

}  // namespace

void mbarrier_init(MBarrier* barrier, std::source_location at) {
  const OrdersNothing scope;
  Block& block = *current->block;
  const std::lock_guard lock(block.counters_mutex);
  if (!block.counters.try_emplace(barrier).second) fail_at(at, "mbarrier_init", "an mbarrier initialized twice");
}

void mbarrier_expect(MBarrier* barrier, size_t bytes, std::source_location at) {
  const OrdersNothing scope;
  ByteCounter& counter = counter_of(*current->block, barrier, at, "mbarrier_expect");
  const std::lock_guard lock(counter.mutex);
  if (counter.expects) fail_at(at, "mbarrier_expect", "a second arrival in one phase of an mbarrier");
  counter.expects = true;
  counter.expected = bytes;
  end_phase(counter, at, "mbarrier_expect");
}

void mbarrier_wait(MBarrier* barrier, unsigned parity, std::source_location at) {
  ByteCounter* counter = nullptr;
  {
    const OrdersNothing scope;
    current->place = {"mbarrier_wait", at};
    counter = &counter_of(*current->block, barrier, at, "mbarrier_wait");
    std::unique_lock lock(counter->mutex);
    if (counter->generation % 2 == parity) wait(*counter, counter->generation, lock);
  }
  const std::lock_guard delivery(counter->delivery);  // orders all who wait after what comes
  std::vector<Transfer> there;
  {
    const OrdersNothing scope;
    const std::lock_guard lock(counter->mutex);
    there.swap(counter->there);
  }
  if (!current->block->cluster.sends_at_once) std::for_each(there.begin(), there.end(), deliver);
}

void bulk_copy(void* shared, const void* global, size_t bytes, MBarrier* barrier, std::source_location at) {
  const OrdersNothing scope;
  ++bulk_copies;
  Block& block = *current->block;
  auto* target = static_cast<unsigned char*>(shared);
  const auto* source = static_cast<const unsigned char*>(global);
  if (bytes == 0 || bytes % 16 || reinterpret_cast<uintptr_t>(target) % 16 || reinterpret_cast<uintptr_t>(source) % 16)
    fail_at(at, "bulk_copy", "a bulk copy that is not of whole 16 bytes");
  const std::vector<unsigned char>& memory = block.shared_memory;
  if (target < memory.data() || target + bytes > memory.data() + memory.size())
    fail_at(at, "bulk_copy", "a bulk copy to outside of the block's shared memory");
  std::memset(target, 0xFF, bytes);
  send(counter_of(block, barrier, at, "bulk_copy"), {target, source, {}, bytes}, at, "bulk_copy");
}

void bulk_prefetch(const void* global, size_t bytes, std::source_location at) {
  if (bytes == 0 || bytes % 16 || reinterpret_cast<uintptr_t>(global) % 16)
    fail_at(at, "bulk_prefetch", "a bulk prefetch that is not of whole 16 bytes");
#if defined(__SANITIZE_ADDRESS__)
  if (__asan_region_is_poisoned(const_cast<void*>(global), bytes))
    fail_at(at, "bulk_prefetch", "a bulk prefetch of what is not there");
#endif
  if (when_prefetched) when_prefetched(global, bytes);
}

void store_async(
    unsigned rank, void* target, const void* value, size_t bytes, MBarrier* barrier, std::source_location at) {
  const OrdersNothing scope;
  unsigned char* there = find_shared(static_cast<unsigned char*>(target), rank, at);
  const unsigned char* counted_by = find_shared(reinterpret_cast<unsigned char*>(barrier), rank, at);
  const auto* begin = static_cast<const unsigned char*>(value);
  Block& peer = current->block->cluster.blocks[rank];
  send(
      counter_of(peer, counted_by, at, "store_async"), {there, nullptr, {begin, begin + bytes}, bytes}, at,
      "store_async");
}

}  // namespace cuda_on_host
