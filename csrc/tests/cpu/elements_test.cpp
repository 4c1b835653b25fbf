// bfloat16 in pairs, taken apart into even and odd elements and put together again: bit for bit.
#include "../../cpu/elements.h"
#include "../matrix.h"

namespace {

using namespace tad;
using namespace tad::portable;
using namespace tad::checks;

constexpr int64_t kLanes = Simd<float>::kLanes;

void test_halves_have_their_places() {
  context = "places";
  BFloat16 pair[2 * kLanes];
  for (int64_t i = 0; i < 2 * kLanes; ++i) to_storage(float(i), pair + i);
  float stored[4 * kLanes];
  store(stored + 2 * kLanes, load_half<0, float>(pair));
  store(stored + 3 * kLanes, load_half<1, float>(pair));
  for (int64_t i = 0; i < 2 * kLanes; ++i) CHECK(stored[even_odd_place<float>(2 * kLanes + i)] == float(i));
}

/// Ties, their neighbours, the largest numbers, infinities and every NaN that bfloat16 has.
void test_rounding() {
  for (uint32_t upper = 0; upper <= 0xffff; ++upper)
    for (uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      const float x = bits_to_float(upper << 16 | lower);
      if (std::isnan(x) && lower != 0) continue;
      context = std::to_string(upper) + " " + std::to_string(lower);
      BFloat16 expected, pair[2 * kLanes];
      to_storage(x, &expected);
      for (bool odd : {false, true}) {
        const Words words = even_odd_bfloat16(splat(odd ? 1.0f : x), splat(odd ? x : 1.0f));
        std::memcpy(pair, &words, sizeof(words));
        for (int64_t i = odd; i < 2 * kLanes; i += 2) {
          if (std::isnan(x))
            CHECK(std::isnan(from_storage<float>(pair[i])));
          else
            CHECK(pair[i].bits == expected.bits || x == 0);  // splat loses the sign of 0
        }
      }
    }
}

}  // namespace

int main() {
  test_halves_have_their_places();
  test_rounding();
  return report();
}
