// Products of bits with rows of floats: what the event-driven kernels share. The bits under a tap of the kernel are gathered, and
// each of them adds one row of weights to a strip of accumulators.
#pragma once
#include "bits.h"
#include "kernels.h"
#include "transpose.h"

namespace {

using rmploss::Convolution;

constexpr int kStrip = 4;                    // registers of one strip of columns
constexpr index_t kPixels = 64;              // pixels whose bits are gathered (and transposed) together
constexpr index_t kSecondLevel = 768 << 10;  // bytes of weights that the second-level cache holds beside everything else

inline int strip_of(index_t columns) { return columns > 2 * kWidth ? kStrip : columns > kWidth ? 2 : 1; }

// acc[NV registers] += the rows whose bit is set.
template <int NV> inline void add_rows(uint64_t bits, const float* rows, float* acc) {
  vfloat a[NV];
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) a[v] = load(acc + v * kWidth);
  while (bits) {
    const float* row = rows + __builtin_ctzll(bits) * (NV * kWidth);
    bits &= bits - 1;
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) a[v] += load(row + v * kWidth);
  }
#pragma GCC unroll 4
  for (int v = 0; v < NV; v++) store(acc + v * kWidth, a[v]);
}

// The bits under one tap of the kernel for `count` output pixels from `first` on: gathered[word][pixel], 0 outside.
struct Window {
  const Convolution& c;
  const uint64_t* bits;
  index_t words;
  int32_t top[kPixels], left[kPixels];
  index_t base[kPixels];
  int count;
  void move(index_t first, int n) {
    count = n;
    index_t x = first % c.out_width, y = first / c.out_width % c.out_height;
    index_t image = first / (c.out_width * c.out_height);
    for (int i = 0; i < n; i++) {
      top[i] = int32_t(y * c.stride - c.padding);
      left[i] = int32_t(x * c.stride - c.padding);
      base[i] = image * c.height * c.width;
      if (++x == c.out_width) {
        x = 0;
        if (++y == c.out_height) y = 0, image++;
      }
    }
  }
  // Under one tap: all ones where it is on the map, else 0; and the first word of its pixel. Without branches: whether a tap is
  // outside is hard to foresee.
  void find(index_t tap, uint64_t* inside, index_t* at) const {
    const int32_t dy = int32_t(tap / c.kernel_width), dx = int32_t(tap % c.kernel_width);
    const uint32_t height = uint32_t(c.height), width = uint32_t(c.width);
    for (int i = 0; i < count; i++) {
      const uint32_t y = uint32_t(top[i] + dy), x = uint32_t(left[i] + dx);  // negative: huge
      inside[i] = -uint64_t((y < height) & (x < width));
      at[i] = (base[i] + index_t(y) * width + x) * words & index_t(inside[i]);
    }
  }
  // Words [first, last) of the bits.
  void gather(index_t tap, index_t first, index_t last, uint64_t* out) const {
    uint64_t inside[kPixels];
    index_t at[kPixels];
    find(tap, inside, at);
    for (index_t w = first; w < last; w++) {
      uint64_t* to = out + (w - first) * kPixels;
      for (int i = 0; i < count; i++) to[i] = bits[at[i] + w] & inside[i];
      for (int i = count; i < kPixels; i++) to[i] = 0;
    }
  }
};

// weight [C', C, taps] -> blocks [strip][word][tap][64][columns of a strip], zeros beyond C and C'.
inline void block_weights(const Convolution& c, const float* weight, index_t columns, float* out) {
  const index_t taps = c.kernel_height * c.kernel_width, words = words_of(c.channels);
  const index_t strips = (c.out_channels + columns - 1) / columns;
#pragma omp parallel for collapse(2) schedule(static) num_threads(c.threads)
  for (index_t s = 0; s < strips; s++)
    for (index_t w = 0; w < words; w++) {
      float* block = out + (s * words + w) * taps * 64 * columns;
      const index_t rows = smaller(64, c.channels - w * 64), wide = smaller(columns, c.out_channels - s * columns);
      if (rows < 64 || wide < columns) memset(block, 0, size_t(taps * 64 * columns) * sizeof(float));
      transpose(weight + (s * columns * c.channels + w * 64) * taps, c.channels * taps, wide, rows * taps, block, columns,
                [taps](index_t at) { return at % taps * 64 + at / taps; });
    }
}

}  // namespace
