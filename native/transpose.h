// The transpose of a matrix of floats, a register by a register at a time.
#pragma once
#include <utility>

#include "simd.h"

namespace {

// Lanes of a and b in turn, from lane `first` on: a0 b0 a1 b1 ..
template <int first, size_t... i> RMPLOSS_INLINE vfloat in_turn(vfloat a, vfloat b, std::index_sequence<i...>) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, (int(i % 2) * kWidth + int(i / 2) + first)...);
#else  // GCC before 12
  return __builtin_shuffle(a, b, Mask<float>{(int(i % 2) * kWidth + int(i / 2) + first)...});
#endif
}

// kWidth registers transposed in place: log2(kWidth) rounds of a perfect shuffle of the first with the second half.
RMPLOSS_INLINE void transpose(vfloat* v) {
  constexpr auto lanes = std::make_index_sequence<size_t(kWidth)>();
#pragma GCC unroll 4
  for (int round = 1; round < kWidth; round *= 2) {
    vfloat next[kWidth];
#pragma GCC unroll 16
    for (int k = 0; k < kWidth / 2; k++) {
      next[2 * k] = in_turn<0>(v[k], v[k + kWidth / 2], lanes);
      next[2 * k + 1] = in_turn<kWidth / 2>(v[k], v[k + kWidth / 2], lanes);
    }
#pragma GCC unroll 16
    for (int k = 0; k < kWidth; k++) v[k] = next[k];
  }
}

// to[column * to_step + row] = from[row * from_step + column] for a matrix of rows x columns; place(column) says which row of
// `to` a column becomes.
template <class Place>
inline void transpose(const float* from, index_t from_step, index_t rows, index_t columns, float* to, index_t to_step,
                      const Place& place) {
  for (index_t r = 0; r < rows; r += kWidth)
    for (index_t c = 0; c < columns; c += kWidth) {
      const int down = int(smaller(kWidth, rows - r)), across = int(smaller(kWidth, columns - c));
      vfloat v[kWidth];
      for (int i = 0; i < kWidth; i++) v[i] = i < down ? load(from + (r + i) * from_step + c, across) : vfloat{};
      transpose(v);
      for (int i = 0; i < across; i++) store(to + place(c + i) * to_step + r, v[i], down);
    }
}

}  // namespace
