#include "block.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace cuda_on_host {

void fail(const char* what, const std::vector<const Thread*>& threads) {
  const auto triple = [](uint3 i) {
    std::string text = "(";
    return text + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
  };
  std::string text = "cuda_on_host: ";
  text += what + (" in block " + triple(threads[0]->block->index)) + "\n";
  for (const Thread* thread : threads) {
    text += "  thread " + triple(thread->index);
    if (thread->block->launch.cluster_blocks > 1) text += " of block " + triple(thread->block->index);
    text += thread->exited ? ": exited, after " : ": ";
    if (const auto& [operation, at] = thread->place; operation != nullptr)
      text += operation + std::string(" at ") + at.file_name() + ":" + std::to_string(at.line()) + " in " +
              at.function_name() + "\n";
    else
      text += "no barrier\n";
  }
  text += std::string("  launched by ") + threads[0]->block->launch.name + "\n";
  std::fputs(text.c_str(), stderr);
  std::abort();
}

void fail_deadlock(const Cluster& cluster) {
  std::vector<const Thread*> waiting;
  for (const Block& block : cluster.blocks)
    for (const Thread& thread : block.threads) {
      const auto there = [&](const Thread* other) { return other->place == thread.place; };
      if (!thread.exited && std::none_of(waiting.begin(), waiting.end(), there)) waiting.push_back(&thread);
    }
  fail("deadlock", waiting);
}

}  // namespace cuda_on_host
