// The surrogate derivatives phi'(v), v = u_pre - V_th (Eq. 5 and others), as in rmploss/surrogate.py.
#pragma once
#include "kernels.h"
#include "simd.h"

namespace {

template <int kind, class S> struct Surrogate {
  S slope, scale, half;
  Surrogate(S s, S damping) : slope(s), scale(0), half(0) {
    if (kind == rmploss::kClippedTanh) scale = s / S(2 * tanh(double(s) / 2));
    if (kind == rmploss::kRectangle) scale = 1 / s, half = s / 2;
    if (kind == rmploss::kTriangle) scale = 1 / s, half = damping / s;
    if (kind == rmploss::kArcTan) scale = s / 2, half = S(M_PI / 2 * double(s));
  }
  inline Vec<S> operator()(Vec<S> v) const {
    const Vec<S> zero = {}, one = splat(S(1)), a = absolute<S>(v);
    if (kind == rmploss::kClippedTanh) {
      // 1 - tanh^2 z = 4 e / (1 + e)^2 with e = exp(-2 |z|): no cancellation.
      const Vec<S> e = exponential(a * (-2 * slope));
      const Vec<S> d = one + e;
      return a > S(0.5) ? zero : (4 * scale) * e / (d * d);  // NaN stays NaN
    }
    if (kind == rmploss::kRectangle) return a < half ? splat(scale) : zero;
    if (kind == rmploss::kTriangle) {
      const Vec<S> d = one - a * scale;
      return d < zero ? zero : d * half;
    }
    if (kind == rmploss::kSigmoid) {
      const Vec<S> e = exponential(a * -slope);
      const Vec<S> d = one + e;
      return slope * e / (d * d);
    }
    const Vec<S> z = v * half;
    return scale / (one + z * z);
  }
};

}  // namespace
