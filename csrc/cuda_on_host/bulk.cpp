#include "bulk.h"

#include <cstring>
#include <mutex>

namespace cuda_on_host {

namespace {

[[noreturn]] void fail_at(std::source_location at, const char* operation, const char* what) {
  current->place = {operation, at};
  fail(what, {current});
}

BulkPhase& phase_of(BulkBarrier* barrier, std::source_location at, const char* operation) {
  std::map<const void*, BulkPhase>& phases = current->block->bulk_phases;
  const auto found = phases.find(barrier);
  if (found == phases.end()) fail_at(at, operation, "a bulk barrier that was not begun");
  return found->second;
}

bool is_shared(const unsigned char* begin, size_t bytes) {
  const std::vector<unsigned char>& memory = current->block->shared_memory;
  return begin >= memory.data() && begin + bytes <= memory.data() + memory.size();
}

}  // namespace

void bulk_begin(BulkBarrier* barrier, std::source_location) {
  const std::lock_guard lock(current->block->bulk_mutex);
  current->block->bulk_phases[barrier] = {};
}

void bulk_expect(BulkBarrier* barrier, size_t bytes, std::source_location at) {
  const std::lock_guard lock(current->block->bulk_mutex);
  BulkPhase& phase = phase_of(barrier, at, "bulk_expect");
  if (phase.expected) fail_at(at, "bulk_expect", "a second arrival in one phase of a bulk barrier");
  phase.expected = bytes;
}

void bulk_copy(void* shared, const void* global, size_t bytes, BulkBarrier* barrier, std::source_location at) {
  auto* target = static_cast<unsigned char*>(shared);
  const auto* source = static_cast<const unsigned char*>(global);
  if (bytes == 0 || bytes % 16 || reinterpret_cast<uintptr_t>(target) % 16 || reinterpret_cast<uintptr_t>(source) % 16)
    fail_at(at, "bulk_copy", "a bulk copy that is not of whole 16 bytes");
  if (!is_shared(target, bytes)) fail_at(at, "bulk_copy", "a bulk copy to outside of the block's shared memory");
  std::memset(target, 0xFF, bytes);
  const std::lock_guard lock(current->block->bulk_mutex);
  phase_of(barrier, at, "bulk_copy").copies.push_back({target, source, bytes});
}

void bulk_wait(BulkBarrier* barrier, unsigned parity, std::source_location at) {
  const std::lock_guard lock(current->block->bulk_mutex);
  BulkPhase& phase = phase_of(barrier, at, "bulk_wait");
  if (phase.completed % 2 != parity) return;
  size_t bytes = 0;
  for (const BulkCopy& copy : phase.copies) bytes += copy.bytes;
  if (!phase.expected || bytes != phase.expected)
    fail_at(at, "bulk_wait", "waits for ever: the bytes that were asked for are not those that are expected");
  for (const BulkCopy& copy : phase.copies) std::memcpy(copy.target, copy.source, copy.bytes);
  phase = {phase.completed + 1, 0, {}};
}

}  // namespace cuda_on_host
