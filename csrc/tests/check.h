// CHECK and CHECK_NEAR print what failed and go on; report() says how many did, and is what main() returns.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#define CHECK(condition) tad::checks::check(condition, __FILE__, __LINE__, #condition)
#define CHECK_NEAR(actual, expected, tolerance) \
  tad::checks::check_near(actual, expected, tolerance, __FILE__, __LINE__, #actual)

namespace tad::checks {

inline int failures = 0;
inline std::string context;  // what is being checked, for the message

/// A broken kernel fails everywhere: the first messages say enough, or the first one where TAD_TEST_FAILURES is 1.
inline void fail(const char* file, int line, const std::string& what) {
  static const char* const most = std::getenv("TAD_TEST_FAILURES");
  const char* name = std::strrchr(file, '/');
  std::printf("%s:%d: failed: %s [%s]\n", name ? name + 1 : file, line, what.c_str(), context.c_str());
  if (++failures == (most ? std::atoi(most) : 10)) std::exit(EXIT_FAILURE);
}

inline void check(bool condition, const char* file, int line, const char* text) {
  if (!condition) fail(file, line, text);
}

/// Within `tolerance`; infinities must be equal, and a NaN is expected where `expected` is one.
inline void check_near(double actual, double expected, double tolerance, const char* file, int line, const char* text) {
  const bool same = actual == expected || (actual != actual && expected != expected);
  if (same || std::abs(actual - expected) <= tolerance) return;
  char numbers[120];
  std::snprintf(numbers, sizeof numbers, " is %.9g, expected %.9g within %.1g", actual, expected, tolerance);
  fail(file, line, text + std::string(numbers));
}

inline int report() {
  std::printf(failures ? "%d checks failed\n" : "all checks passed\n", failures);
  return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

}  // namespace tad::checks
