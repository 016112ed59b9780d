// Portable vectors: one register of float or double, as wide as the instruction set this file is compiled for.
// GCC's and Clang's vector extensions; nothing here may be a non-inline symbol, because the same source is compiled
// once per instruction set and linked into one module.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(_OPENMP)
#include <omp.h>
#endif

#if defined(__AVX512F__)
#define RMPLOSS_BYTES 64
#elif defined(__AVX2__)
#define RMPLOSS_BYTES 32
#else
#define RMPLOSS_BYTES 16
#endif

#define RMPLOSS_INLINE inline __attribute__((always_inline))
#define RMPLOSS_INLINE_LAMBDA __attribute__((always_inline))

namespace {

typedef int64_t index_t;

template <class S> struct VecOf;
template <> struct VecOf<float> {
  typedef float type __attribute__((vector_size(RMPLOSS_BYTES)));
  typedef int32_t mask __attribute__((vector_size(RMPLOSS_BYTES)));
};
template <> struct VecOf<double> {
  typedef double type __attribute__((vector_size(RMPLOSS_BYTES)));
  typedef int64_t mask __attribute__((vector_size(RMPLOSS_BYTES)));
};
template <class S> using Vec = typename VecOf<S>::type;
template <class S> using Mask = typename VecOf<S>::mask;
template <class S> constexpr int kLanes = RMPLOSS_BYTES / int(sizeof(S));
typedef Vec<float> vfloat;
constexpr int kWidth = kLanes<float>;

template <class S> RMPLOSS_INLINE Vec<S> load(const S* p) {
  Vec<S> v;
  memcpy(&v, p, sizeof v);
  return v;
}
template <class S> RMPLOSS_INLINE void store(S* p, Vec<S> v) { memcpy(p, &v, sizeof v); }

// The last channels of a row: fewer than a register holds.
template <class S> RMPLOSS_INLINE Vec<S> load(const S* p, int n) {
  if (n == kLanes<S>) return load(p);
  Vec<S> v = {};
  memcpy(&v, p, size_t(n) * sizeof(S));
  return v;
}
template <class S> RMPLOSS_INLINE void store(S* p, Vec<S> v, int n) {
  if (n == kLanes<S>) return store(p, v);
  memcpy(p, &v, size_t(n) * sizeof(S));
}
template <class S> inline Vec<S> splat(S x) { return x - Vec<S>{}; }
template <class S> RMPLOSS_INLINE Vec<S> absolute(Vec<S> v) {
  constexpr auto sign = sizeof(S) == 4 ? int64_t(0x7fffffff) : int64_t(0x7fffffffffffffff);
  return (Vec<S>)((Mask<S>)v & (Mask<S>{} + decltype(Mask<S>{}[0] + 0)(sign)));
}

// A number of registers, known to the compiler.
template <int n> struct Count {};

// Calls place(first channel, lanes, number of registers) for all channels of a row, in their order: `together` registers at a
// time, single ones, and the lanes that are left.
template <class S, int together, class Place> RMPLOSS_INLINE void along_channels(index_t channels, const Place& place) {
  index_t c = 0;
  for (; c + together * kLanes<S> <= channels; c += together * kLanes<S>) place(c, kLanes<S>, Count<together>{});
  for (; c + kLanes<S> <= channels; c += kLanes<S>) place(c, kLanes<S>, Count<1>{});
  if (c < channels) place(c, int(channels - c), Count<1>{});
}

inline int thread_number() {
#if defined(_OPENMP)
  return omp_get_thread_num();
#else
  return 0;
#endif
}
inline index_t smaller(index_t a, index_t b) { return a < b ? a : b; }
inline index_t larger(index_t a, index_t b) { return a > b ? a : b; }

// a b + c in one rounding where the machine has it, also where contraction is off.
RMPLOSS_INLINE vfloat fused(vfloat a, vfloat b, vfloat c) {
#if defined(__AVX512F__)
  return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
RMPLOSS_INLINE Vec<double> fused(Vec<double> a, Vec<double> b, Vec<double> c) { return a * b + c; }

// exp(x) of float, x <= 0: x = k ln 2 + r, a polynomial of degree 7 in r (|r| <= ln 2 / 2; its error is below half an ulp), 2^k put
// into the exponent. Relative error below 2 ulp for x in [-87, 0]; clamped below.
RMPLOSS_INLINE vfloat exponential(vfloat x) {
  const vfloat low = splat(-87.0f);
  x = x < low ? low : x;
  const vfloat magic = splat(12582912.0f);  // 1.5 2^23: adding it rounds to an integer
  vfloat k = fused(x, splat(1.44269504f), magic);
  const Mask<float> exponent = (Mask<float>)k;
  k -= magic;
  const vfloat r = fused(k, splat(2.12194440e-4f), fused(k, splat(-0.693359375f), x));
  vfloat y = splat(1.0f / 5040);
  y = fused(y, r, splat(1.0f / 720));
  y = fused(y, r, splat(1.0f / 120));
  y = fused(y, r, splat(1.0f / 24));
  y = fused(y, r, splat(1.0f / 6));
  y = fused(y, r, splat(0.5f));
  y = fused(y, r, splat(1.0f));
  y = fused(y, r, splat(1.0f));
  const Mask<float> scale = (exponent + 127) << 23;  // the magic's own bits fall off the left end
  return y * (vfloat)scale;
}
inline Vec<double> exponential(Vec<double> x) {
  for (int i = 0; i < kLanes<double>; i++) x[i] = exp(x[i]);
  return x;
}
template <class S> inline Vec<S> power(Vec<S> x, S p) {
  for (int i = 0; i < kLanes<S>; i++) x[i] = S(pow(double(x[i]), double(p)));
  return x;
}

}  // namespace
