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

// The lanes that are not 0, from the lowest bit on; a lane is 0 or 1.
template <class S> RMPLOSS_INLINE uint64_t bits_of(Vec<S> o) {
  const Mask<S> on = o != Vec<S>{};
#if defined(__AVX512F__)
  if constexpr (sizeof(S) == 4) return _mm512_movepi32_mask((__m512i)on);
  else return _mm512_movepi64_mask((__m512i)on);
#elif defined(__AVX2__)
  if constexpr (sizeof(S) == 4) return uint32_t(_mm256_movemask_ps((__m256)on));
  else return uint32_t(_mm256_movemask_pd((__m256d)on));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kLanes<S>; i++) bits |= uint64_t(on[i] & 1) << i;
  return bits;
#endif
}

// 0 or 1 in every lane, from the lowest bits.
RMPLOSS_INLINE vfloat spread(uint64_t bits, vfloat) {
#if defined(__AVX512F__)
  return (vfloat)_mm512_maskz_mov_ps(__mmask16(bits), _mm512_set1_ps(1.0f));
#else
  vfloat v;
  for (int i = 0; i < kWidth; i++) v[i] = float(bits >> i & 1);
  return v;
#endif
}
RMPLOSS_INLINE Vec<double> spread(uint64_t bits, Vec<double>) {
  Vec<double> v;
  for (int i = 0; i < kLanes<double>; i++) v[i] = double(bits >> i & 1);
  return v;
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
