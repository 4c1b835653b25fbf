// What the tests of the CPU and CUDA kernels share: matrices that end where their last row ends, errors of
// dtypes, and float64 formulas.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../common/arguments.h"
#include "../common/storage.h"
#include "check.h"

namespace tad::checks {

constexpr double kInfinity = INFINITY, kNaN = NAN;

// ---- dtypes -------------------------------------------------------------------------------------------------------

inline const char* name_of(DType dtype) {
  constexpr const char* kNames[] = {"float32", "float64", "bfloat16", "float16"};
  return kNames[int(dtype)];
}

/// Relative error of arithmetic on a dtype's elements: float32 for the half ones, with exponents of a few dozens.
inline double arithmetic_error(DType dtype) {
  return dtype == DType::kFloat64 ? 1e-12 : 8e-6;
}

/// Relative error of a result that is stored in a dtype.
inline double stored_error(DType dtype) {
  return dtype == DType::kBFloat16 ? 1.0 / 256 : dtype == DType::kFloat16 ? 1.0 / 1024 : arithmetic_error(dtype);
}

/// Absolute error where a dtype's numbers become subnormal.
inline double subnormal_error(DType dtype) {
  return dtype == DType::kFloat16 ? 6e-8 : dtype == DType::kFloat64 ? 1e-300 : 1e-36;
}

// ---- memory -------------------------------------------------------------------------------------------------------

/// Elements of 0xFF bytes, NaN or -1: an output that the kernel did not write shows.
template <class T>
std::vector<T> poisoned(int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  if (count > 0) std::memset(static_cast<void*>(values.data()), 0xFF, sizeof(T) * values.size());
  return values;
}

/// Rows on the heap, poisoned. The memory begins `offset` elements before the first row and ends with the last one, so
/// that AddressSanitizer sees every access behind it; between rows lie `gap` elements that stay poisoned.
class Matrix {
 public:
  Matrix(DType dtype, int64_t rows, int64_t columns, int64_t gap = 0, int64_t offset = 0)
      : dtype_(dtype), rows_(rows), columns_(columns), stride_(columns + gap), offset_(offset) {
    const int64_t elements = offset + (rows > 0 ? (rows - 1) * stride_ + columns : 0);
    bytes_ = poisoned<unsigned char>(elements * portable::element_size(dtype));
  }

  Rows view() const { return view(0, rows_); }
  Rows view(int64_t first, int64_t rows) const { return {at(first, 0), stride_, dtype_, rows}; }
  MutableRows mutable_view() { return {const_cast<unsigned char*>(at(0, 0)), stride_, dtype_, rows_}; }
  const std::vector<unsigned char>& bytes() const { return bytes_; }
  DType dtype() const { return dtype_; }
  int64_t columns() const { return columns_; }

  double get(int64_t row, int64_t column) const {
    using portable::from_storage;
    const void* p = at(row, column);
    switch (dtype_) {
      case DType::kFloat32: return from_storage<double>(*static_cast<const float*>(p));
      case DType::kFloat64: return from_storage<double>(*static_cast<const double*>(p));
      case DType::kBFloat16: return from_storage<double>(*static_cast<const BFloat16*>(p));
      default: return from_storage<double>(*static_cast<const Float16*>(p));
    }
  }
  std::vector<double> row(int64_t row) const {
    std::vector<double> values;
    for (int64_t column = 0; column < columns_; ++column) values.push_back(get(row, column));
    return values;
  }
  void set(int64_t row, int64_t column, double x) {
    using portable::to_storage;
    void* p = const_cast<unsigned char*>(at(row, column));
    switch (dtype_) {
      case DType::kFloat32: return to_storage(x, static_cast<float*>(p));
      case DType::kFloat64: return to_storage(x, static_cast<double*>(p));
      case DType::kBFloat16: return to_storage(x, static_cast<BFloat16*>(p));
      default: return to_storage(x, static_cast<Float16*>(p));
    }
  }
  void set_row(int64_t row, const std::vector<double>& values) {
    for (int64_t column = 0; column < columns_; ++column) set(row, column, values[size_t(column)]);
  }
  Matrix& randomize(unsigned seed, double scale = 4) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal(0, scale);
    for (int64_t row = 0; row < rows_; ++row)
      for (int64_t column = 0; column < columns_; ++column) set(row, column, normal(generator));
    return *this;
  }

  /// Whether all that belongs to no row is as it was.
  bool gaps_are_untouched() const {
    std::vector<bool> in_row(bytes_.size(), false);
    const int64_t size = portable::element_size(dtype_);
    for (int64_t row = 0; row < rows_; ++row)
      for (int64_t i = 0; i < columns_ * size; ++i) in_row[size_t((offset_ + row * stride_) * size + i)] = true;
    for (size_t i = 0; i < bytes_.size(); ++i)
      if (!in_row[i] && bytes_[i] != 0xFF) return false;
    return true;
  }

 private:
  const unsigned char* at(int64_t row, int64_t column) const {
    return bytes_.data() + (offset_ + row * stride_ + column) * portable::element_size(dtype_);
  }

  DType dtype_;
  int64_t rows_, columns_, stride_, offset_;
  std::vector<unsigned char> bytes_;
};

/// Appends the bytes of some results to those of others.
template <class T>
void append(std::vector<unsigned char>& bytes, const std::vector<T>& values) {
  const auto* data = reinterpret_cast<const unsigned char*>(values.data());
  bytes.insert(bytes.end(), data, data + sizeof(T) * values.size());
}

// ---- float64 formulas ---------------------------------------------------------------------------------------------

/// log softmax(x / temperature); NaN all over where the row has a NaN or +inf, or nothing is possible.
inline std::vector<double> log_softmax_of(const std::vector<double>& x, double temperature = 1) {
  double max = -kInfinity, sum = 0;
  for (double value : x) max = value > max ? value : max;
  for (double value : x) sum += std::exp((value - max) / temperature);
  std::vector<double> result;
  for (double value : x) result.push_back((value - max) / temperature - std::log(sum));
  return result;
}

inline double log_sum_exp(const std::vector<double>& x, double temperature = 1) {
  double max = -kInfinity, sum = 0;
  for (double value : x) max = value > max ? value : max;
  for (double value : x) sum += std::exp((value - max) / temperature);
  return max / temperature + std::log(sum);
}

}  // namespace tad::checks
