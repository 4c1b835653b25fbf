// Philox4x32-10 (Salmon et al., SC 2011) and the Gumbel noise of token sampling: a pure function of
// (seed of the sequence, step, position, vocabulary index), so that a sample never depends on the batch around it.
#pragma once

#include <cmath>
#include <cstdint>

#include "platform.h"

namespace tad {
namespace TAD_ISA {

struct PhiloxWords {
  uint32_t word[4];
};

TAD_HOST_DEVICE PhiloxWords philox(uint64_t seed, uint64_t offset, uint32_t block) {
  uint32_t c0 = block, c1 = uint32_t(offset), c2 = uint32_t(offset >> 32), c3 = 0;
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t(0xD2511F53u) * c0;
    const uint64_t product1 = uint64_t(0xCD9E8D57u) * c2;
    c0 = uint32_t(product1 >> 32) ^ c1 ^ k0;
    c1 = uint32_t(product1);
    c2 = uint32_t(product0 >> 32) ^ c3 ^ k1;
    c3 = uint32_t(product0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

/// No Gumbel noise below exceeds this: a logit whose key plus this bound cannot win needs no noise at all.
constexpr double kGumbelBound = 17.33;

TAD_HOST_DEVICE double gumbel(uint32_t word) {
  const double uniform = (double(word >> 8) + 0.5) * (1.0 / 16777216.0);
  return -std::log(-std::log(uniform));
}

}  // namespace TAD_ISA
}  // namespace tad
