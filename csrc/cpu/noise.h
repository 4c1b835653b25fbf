// Philox for several quads of tokens side by side: as common/philox.h has it, in vectors.
#pragma once

#include "../common/philox.h"
#include "simd.h"

namespace tad {
namespace TAD_ISA {

typedef uint64_t NoiseVector __attribute__((vector_size(TAD_VECTOR_BYTES)));
constexpr int kNoiseQuads =
    sizeof(NoiseVector) / sizeof(uint64_t);  // a quad to a lane, whose upper half is not looked at

/// Products of the lanes' lower halves with a number.
inline NoiseVector product(NoiseVector a, uint32_t factor) {
#if defined(TAD_HAS_AVX512)
  return (NoiseVector)_mm512_maskz_mul_epu32(0xff, (__m512i)a, _mm512_set1_epi64(factor));
#elif defined(TAD_HAS_F16C)
  return (NoiseVector)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(factor));
#else
  return (a & 0xffffffffu) * factor;
#endif
}

/// The words of quads `quad`, `quad` + 1, ..., if the upper 24 bits of any are at least `least`; else false, and
/// nothing is written.
inline bool noise_words(int64_t seed, int64_t offset, int64_t quad, uint32_t least, PhiloxWords* words) {
  uint32_t k0 = uint32_t(seed), k1 = uint32_t(uint64_t(seed) >> 32);
  NoiseVector c0, c1 = NoiseVector{} + uint32_t(offset), c2 = NoiseVector{} + uint32_t(uint64_t(offset) >> 32), c3{};
  for (int i = 0; i < kNoiseQuads; ++i) c0[i] = uint64_t(quad + i);
  for (int round = 0; round < 10; ++round) {
    const NoiseVector product0 = product(c0, 0xD2511F53u), product1 = product(c2, 0xCD9E8D57u);
    c0 = (product1 >> 32) ^ c1 ^ k0;
    c1 = product1;
    c2 = (product0 >> 32) ^ c3 ^ k1;
    c3 = product0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  // The lower halves, shifted up, compare as they would by themselves.
  const NoiseVector bound = NoiseVector{} + (uint64_t(least) << 40);
  const auto enough = (c0 << 32 >= bound) | (c1 << 32 >= bound) | (c2 << 32 >= bound) | (c3 << 32 >= bound);
  bool any = false;
  for (int i = 0; i < kNoiseQuads; ++i) any = any || enough[i];
  if (!any) return false;
  for (int i = 0; i < kNoiseQuads; ++i)
    words[i] = {{uint32_t(c0[i]), uint32_t(c1[i]), uint32_t(c2[i]), uint32_t(c3[i])}};
  return true;
}

}  // namespace TAD_ISA
}  // namespace tad
