// Spikes as bits: rows of channels, 64 to a word.
#pragma once
#include "simd.h"

namespace {

inline index_t words_of(index_t channels) { return (channels + 63) / 64; }

// The nonzero pattern of one register of floats; bad collects the lanes that are neither 0 nor 1.
inline uint64_t nonzero(vfloat v, Mask<float>& bad) {
  const vfloat zero = {}, one = splat(1.0f);
  const Mask<float> on = v == one;
  bad |= ~(on | (v == zero));
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)on);
#elif defined(__AVX2__)
  return uint32_t(_mm256_movemask_ps((__m256)on));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kWidth; i++) bits |= uint64_t(on[i] & 1) << i;
  return bits;
#endif
}

// Transposes 64 words of 64 bits: bit j of word i becomes bit i of word j. Block swaps of 32, 16, .., 1.
inline void transpose64(uint64_t* a) {
  uint64_t mask = 0x00000000ffffffffull;
  for (int j = 32; j; j >>= 1, mask ^= mask << j)
    for (int k = 0; k < 64; k += 2 * j)
      for (int i = k; i < k + j; i++) {
        const uint64_t t = ((a[i] >> j) ^ a[i + j]) & mask;
        a[i] ^= t << j;
        a[i + j] ^= t;
      }
}

}  // namespace
