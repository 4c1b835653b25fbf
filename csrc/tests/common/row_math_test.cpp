// Host tests of csrc/common: merges in any split give the whole row's sums, selections keep their tie rule, Philox
// gives the published words. The kernels of csrc/cpu have tests of their own.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "../../common/philox.h"
#include "../../common/row_math.h"
#include "../check.h"

namespace {

bool close(double a, double b, double tolerance = 1e-9) {
  return std::abs(a - b) <= tolerance * (1 + std::abs(b));
}

using namespace tad;
using namespace tad::TAD_ISA;

std::vector<double> random_row(int64_t n, unsigned seed, double scale = 4) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> normal(0, scale);
  std::vector<double> row(n);
  for (double& x : row) x = normal(generator);
  return row;
}

RowSum<double> sum_of(const std::vector<double>& row, size_t begin, size_t end, double b) {
  RowSum<double> part;
  for (size_t i = begin; i < end; ++i) part.max = std::fmax(part.max, row[i]);
  for (size_t i = begin; i < end; ++i) {
    const double a = b * (row[i] - reference_of(part.max)), e = std::exp(a);
    part.sum += e;
    if (e > 0) part.weighted += e * a;
  }
  return part;
}

DivergenceSum<double> divergence_of(
    const std::vector<double>& s, const std::vector<double>& t, size_t begin, size_t end, double b) {
  DivergenceSum<double> part{sum_of(s, begin, end, b), sum_of(t, begin, end, b)};
  part.teacher.weighted = 0;
  for (size_t i = begin; i < end; ++i) {
    const double a = b * (t[i] - reference_of(part.teacher.max));
    if (std::exp(a) > 0) part.teacher.weighted += std::exp(a) * (a - b * (s[i] - reference_of(part.student.max)));
  }
  return part;
}

void test_merges() {
  for (unsigned seed = 0; seed < 20; ++seed) {
    for (double b : {1.0, 0.4}) {
      std::vector<double> s = random_row(301, seed), t = random_row(301, seed + 100);
      for (size_t i = 0; i < 40; ++i) s[i] = t[i] = -INFINITY;  // a part in which nothing is possible
      const size_t cut = seed * 15 + 5;
      const RowSum<double> whole = sum_of(s, 0, 301, b),
                           merged = merge(sum_of(s, 0, cut, b), sum_of(s, cut, 301, b), b);
      CHECK(close(merged.max, whole.max) && close(merged.sum, whole.sum) && close(merged.weighted, whole.weighted));
      const double kl = divergence_of(s, t, 0, 301, b).divergence();
      CHECK(close(merge(divergence_of(s, t, 0, cut, b), divergence_of(s, t, cut, 301, b), b).divergence(), kl));
      CHECK(kl > 0);
      CHECK(std::abs(divergence_of(s, s, 0, 301, b).divergence()) < 1e-12);
    }
  }
}

PeakedSum<double> peaked_sum_of(const std::vector<double>& row, size_t begin, size_t end) {
  PeakedSum<double> part;
  size_t peak = begin;
  for (size_t i = begin; i < end; ++i)
    if (row[i] > row[peak]) peak = i;
  if (begin == end || row[peak] == -INFINITY) return part;
  part.max = row[peak];
  for (size_t i = begin; i < end; ++i) {
    const double a = row[i] - part.max, e = std::exp(a);
    if (i != peak) part.others += e;
    if (e > 0) part.weighted += e * a;
  }
  return part;
}

// However far the largest element stands above the others, which part has it, and whether another is as large.
void test_peaked_merges() {
  for (double peak : {0.0, 10.0, 30.0, 70.0}) {
    for (size_t place : {0, 17, 299}) {
      std::vector<double> row = random_row(300, unsigned(place), 2);
      for (size_t i = 100; i < 140; ++i) row[i] = -INFINITY;
      row[place] += peak;
      for (bool twice : {false, true}) {
        if (twice) row[250] = row[place];
        const PeakedSum<double> whole = peaked_sum_of(row, 0, 300);
        for (size_t cut : {0, 1, 17, 18, 120, 299, 300}) {
          const PeakedSum<double> left = peaked_sum_of(row, 0, cut), right = peaked_sum_of(row, cut, 300);
          for (const PeakedSum<double>& merged : {merge(left, right), merge(right, left)}) {
            CHECK(merged.max == whole.max && close(merged.others / whole.others, 1));
            CHECK(close(merged.entropy(merged.log_sum()) / whole.entropy(whole.log_sum()), 1));
          }
        }
        CHECK(
            close(whole.odds_against(row[5]), std::exp(whole.max + whole.log_sum() - row[5]) - 1) ||
            row[5] == whole.max);
      }
    }
  }
}

Top2<double> top2_of(const std::vector<double>& row, size_t begin, size_t end) {
  Top2<double> top;
  for (size_t i = begin; i < end; ++i) top.push(row[i], int64_t(i));
  return top;
}

// A part in which the teacher has no probability left adds nothing, whichever side of the merge it stands on.
void test_divergence_does_not_depend_on_order() {
  for (double level : {-100.0, -200.0, -1000.0}) {
    std::vector<double> s = random_row(200, 5), t = random_row(200, 6);
    for (size_t i = 0; i < 100; ++i) {
      s[i] = -INFINITY;
      t[i] = level;
    }
    const DivergenceSum<double> low = divergence_of(s, t, 0, 100, 1), rest = divergence_of(s, t, 100, 200, 1);
    CHECK(close(merge(low, rest, 1.0).divergence(), rest.divergence()));
    CHECK(close(merge(rest, low, 1.0).divergence(), rest.divergence()));
  }
}

void test_top2() {
  for (unsigned seed = 0; seed < 200; ++seed) {
    std::vector<double> row = random_row(12, seed, 1);
    for (double& x : row) x = std::round(x);  // many ties
    const Top2<double> whole = top2_of(row, 0, 12);
    for (size_t cut = 0; cut <= 12; ++cut) {
      const Top2<double> left = top2_of(row, 0, cut), right = top2_of(row, cut, 12);
      for (const Top2<double>& merged : {merge(left, right), merge(right, left)})
        CHECK(merged.index == whole.index && merged.second_index == whole.second_index);
    }
  }
}

void test_philox() {
  const PhiloxWords zeros = philox(0, 0, 0);
  CHECK(zeros.word[0] == 0x6627E8D5u && zeros.word[1] == 0xE169C58Du);
  CHECK(zeros.word[2] == 0xBC57AC4Cu && zeros.word[3] == 0x9B00DBD8u);
  CHECK(gumbel(0xFFFFFFFFu) <= kGumbelBound && std::isfinite(gumbel(0)));
}

}  // namespace

int main() {
  test_merges();
  test_peaked_merges();
  test_divergence_does_not_depend_on_order();
  test_top2();
  test_philox();
  return tad::checks::report();
}
