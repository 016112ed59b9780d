// LIF neurons over time, forward and backward, with the norm in front of them and the membrane moments in the same pass
// (Eqs. 1-3, 6-10; the recursion of backward is derived in src/rmploss/ops/README.md).
//
// Compiled without contraction of a * b + c: backward recomputes the membrane from the input current, by the same inline
// function and so with the same bits, and nothing of the membrane is stored in between.
#include "kernels.h"
#include "memory.h"
#include "simd.h"
#include "surrogate.h"

namespace {

using rmploss::Backward;
using rmploss::Forward;
using rmploss::Neurons;
using rmploss::Scratch;

constexpr index_t kBlock = 16;   // rows whose channels are walked one register at a time
constexpr index_t kPieces = 64;  // pieces of work, each with sums of its own

// Constants of one register of channels.
template <class S> struct Channels {
  Vec<S> mean, gain, bias, decay, threshold, reset;  // reset: the potential after it, or what it subtracts
  Channels(const Neurons<S>& a, index_t c, int n) {
    mean = a.mean ? load(a.mean + c, n) : Vec<S>{};
    gain = a.gain ? load(a.gain + c, n) : splat(S(1));
    bias = a.bias ? load(a.bias + c, n) : Vec<S>{};
    decay = load(a.decay + c, n);
    threshold = load(a.threshold + c, n);
    reset = a.reset == rmploss::kSoft ? threshold : splat(a.reset_to);
  }
};

template <class S> struct Moments {
  Vec<S> sum[4] = {};
};

// 0 or 1 in every lane, from the lowest bits.
inline vfloat spread(uint64_t bits, vfloat) {
#if defined(__AVX512F__)
  return (vfloat)_mm512_maskz_mov_ps(__mmask16(bits), _mm512_set1_ps(1.0f));
#else
  vfloat v;
  for (int i = 0; i < kWidth; i++) v[i] = float(bits >> i & 1);
  return v;
#endif
}
inline Vec<double> spread(uint64_t bits, Vec<double>) {
  Vec<double> v;
  for (int i = 0; i < kLanes<double>; i++) v[i] = double(bits >> i & 1);
  return v;
}

// x(t) of one register.
template <class S>
RMPLOSS_INLINE Vec<S> current(const Neurons<S>& a, const Channels<S>& k, index_t t, index_t row, index_t c, int n) {
  const index_t at = (t * a.rows + row) * a.channels + c;
  Vec<S> x = load(a.y + (a.is_static ? row * a.channels + c : at), n);
  if (a.mean) x -= k.mean;
  if (a.gain) x *= k.gain;
  if (a.bias) x += k.bias;
  if (a.residual) x += load(a.residual + at, n);
  if (a.residual_bits) {
    const index_t words = (a.channels + 63) / 64;
    x += spread(a.residual_bits[(t * a.rows + row) * words + c / 64] >> (c % 64), Vec<S>{});
  }
  return x;
}

template <class S> RMPLOSS_INLINE Vec<S> initial(const Neurons<S>& a, index_t row, index_t c, int n) {
  if (a.start) return load(a.start + row * a.channels + c, n);
  return splat(a.reset == rmploss::kHard ? a.reset_to : S(0));
}

// Eq. 1 and Eq. 2.
template <class S> RMPLOSS_INLINE Vec<S> charge(const Channels<S>& k, Vec<S> u, Vec<S> x) { return k.decay * u + x; }
template <class S> RMPLOSS_INLINE Vec<S> fire(const Channels<S>& k, Vec<S> pre) {
  return pre >= k.threshold ? splat(S(1)) : Vec<S>{};
}

// Eq. 3.
template <class S> RMPLOSS_INLINE Vec<S> after_reset(const Neurons<S>& a, const Channels<S>& k, Vec<S> pre, Vec<S> o) {
  return a.reset == rmploss::kHard ? pre * (1 - o) + k.reset * o : pre - k.reset * o;
}

template <class S> RMPLOSS_INLINE Vec<S> distance(Vec<S> d, S p) {
  if (p == 2) return d * d;
  d = absolute<S>(d);
  if (p == 1) return d;
  return d == Vec<S>{} ? Vec<S>{} : power<S>(d, p);
}

// p |d|^(p-1) sign(d); 0 at d = 0.
template <class S> RMPLOSS_INLINE Vec<S> distance_slope(Vec<S> d, S p) {
  if (p == 2) return 2 * d;
  const Vec<S> zero = {};
  const Vec<S> sign = d > zero ? splat(S(1)) : d < zero ? splat(S(-1)) : zero;
  if (p == 1) return sign;
  return d == zero ? zero : p * power<S>(absolute<S>(d), p - 1) * sign;
}

template <class S>
RMPLOSS_INLINE void forward_register(const Neurons<S>& a, const Forward<S>& f, const Channels<S>& k, index_t row, index_t c,
                                     int n, Moments<S>& m) {
  Vec<S> u = initial(a, row, c, n);
  for (index_t t = 0; t < a.steps; t++) {
    const Vec<S> x = current(a, k, t, row, c, n);
    const Vec<S> pre = charge<S>(k, u, x), o = fire<S>(k, pre);
    store(f.spikes + (t * a.rows + row) * a.channels + c, o, n);
    if (a.moments) {
      const Vec<S> potential = a.of_input ? x : pre;
      const Vec<S> target = a.of_input ? fire<S>(k, x) : o;
      m.sum[0] += potential;
      m.sum[1] += potential * potential;
      m.sum[2] += distance<S>(target - potential, a.p);
      m.sum[3] += o;
    }
    u = after_reset(a, k, pre, o);
  }
  if (f.last) store(f.last + row * a.channels + c, u, n);
}

// Calls work(first row, last row, scratch, padded) for blocks of rows, in parallel. scratch holds four sums per channel
// (arrays of `padded` channels), then two registers per time step. A block's sums are added to its piece's in double, the pieces'
// to sums [4, C] in their order.
template <class S, class Work>
inline void in_pieces(const Neurons<S>& a, S* sums, const Work& work) {
  const index_t C = a.channels, blocks = (a.rows + kBlock - 1) / kBlock;
  const index_t pieces = smaller(kPieces, blocks), padded = (C + kLanes<S> - 1) / kLanes<S> * kLanes<S>;
  const Scratch<double> sums_of_pieces(size_t(pieces * 4 * C));
  const Scratch<S> scratches(size_t(4 * padded + 2 * a.steps * kLanes<S>), a.threads);
  double* partial = sums_of_pieces.data();
  memset(partial, 0, size_t(pieces * 4 * C) * sizeof(double));
#pragma omp parallel num_threads(a.threads)
  {
    S* scratch = scratches.of(thread_number());
#pragma omp for schedule(dynamic)
    for (index_t piece = 0; piece < pieces; piece++) {
      double* sum = partial + piece * 4 * C;
      for (index_t block = blocks * piece / pieces; block < blocks * (piece + 1) / pieces; block++) {
        memset(scratch, 0, size_t(4 * padded) * sizeof(S));
        work(block * kBlock, smaller((block + 1) * kBlock, a.rows), scratch, padded);
        if (sums)
          for (int r = 0; r < 4; r++)
            for (index_t c = 0; c < C; c++) sum[r * C + c] += double(scratch[r * padded + c]);
      }
    }
  }
  if (sums)
    for (index_t i = 0; i < 4 * C; i++) {
      double total = 0;
      for (index_t piece = 0; piece < pieces; piece++) total += partial[piece * 4 * C + i];
      sums[i] = S(total);
    }
}

// One register of channels of one row. Arguments are copied and sums travel by value: a store through a pointer could
// otherwise change them for all that the compiler knows. scratch: the sums of some rows, four arrays of `padded` channels.
template <class S>
RMPLOSS_INLINE void forward_place(const Neurons<S> a, const Forward<S> f, index_t row, index_t c, int n, S* scratch,
                                  index_t padded) {
  const Channels<S> k(a, c, n);
  Moments<S> m;
  if (a.moments)
    for (int r = 0; r < 4; r++) m.sum[r] = load(scratch + r * padded + c);
  forward_register(a, f, k, row, c, n, m);
  if (a.moments)
    for (int r = 0; r < 4; r++) store(scratch + r * padded + c, m.sum[r]);
}

// Rows first, channels inside: every array is read and written in the order of its memory.
template <class S> void lif_forward(const Neurons<S>& a, const Forward<S>& f) {
  in_pieces<S>(a, f.moments, [&](index_t block, index_t end, S* scratch, index_t padded) {
    const index_t whole = a.channels / kLanes<S> * kLanes<S>;
    for (index_t row = block; row < end; row++) {
      for (index_t c = 0; c < whole; c += kLanes<S>) forward_place<S>(a, f, row, c, kLanes<S>, scratch, padded);
      if (whole < a.channels) forward_place<S>(a, f, row, whole, int(a.channels - whole), scratch, padded);
    }
  });
}

// The gradient of the moments of one register of channels.
template <class S> struct MomentGradients {
  Vec<S> g[4];
  MomentGradients(const Neurons<S>& a, const Backward<S>& b, index_t c, int n) {
    for (int r = 0; r < 4; r++) g[r] = b.moments ? load(b.moments + r * a.channels + c, n) : Vec<S>{};
  }
};

// history: u_pre of every step and the membrane before it, 2 * steps registers.
template <class S, int kind>
RMPLOSS_INLINE void backward_register(const Neurons<S>& a, const Backward<S>& b, const Channels<S>& k, const MomentGradients<S>& G,
                              const Surrogate<kind, S>& slope, Vec<S>* history, index_t row, index_t c, int n,
                              Vec<S>* sums) {
  const Vec<S> zero = {};
  Vec<S> u = initial(a, row, c, n);
  for (index_t t = 0; t < a.steps; t++) {
    const Vec<S> pre = charge<S>(k, u, current(a, k, t, row, c, n));
    history[2 * t] = pre;
    history[2 * t + 1] = u;
    u = after_reset<S>(a, k, pre, fire<S>(k, pre));
  }
  Vec<S> g_u = b.last ? load(b.last + row * a.channels + c, n) : zero;
  Vec<S> total = zero;
  const bool pull = b.moments != nullptr;
  for (index_t t = a.steps - 1; t >= 0; t--) {
    const index_t at = (t * a.rows + row) * a.channels + c;
    const Vec<S> pre = history[2 * t], before = history[2 * t + 1];
    const Vec<S> o = fire<S>(k, pre);
    const Vec<S> g_spike = b.spikes ? load(b.spikes + at, n) : zero;
    Vec<S> d_o = g_spike + G.g[3];
    if (!a.detach_reset) d_o = fused(g_u, a.reset == rmploss::kHard ? k.reset - pre : -k.reset, d_o);
    Vec<S> g_pre = a.reset == rmploss::kHard ? fused(-g_u, o, g_u) : g_u;
    Vec<S> g_input = zero, g_target = zero;
    if (pull && !a.of_input) {
      const Vec<S> q = G.g[2] * distance_slope<S>(o - pre, a.p);
      g_pre += fused(pre, G.g[1] + G.g[1], G.g[0]) - q;
      if (!a.detach_target) d_o += q;
    }
    const Vec<S> derivative = slope(pre - k.threshold);
    const Vec<S> g_fire = d_o * derivative;
    g_pre = fused(d_o, derivative, g_pre);
    if (pull && a.of_input) {
      const Vec<S> x = current(a, k, t, row, c, n);
      const Vec<S> q = G.g[2] * distance_slope<S>(fire<S>(k, x) - x, a.p);
      g_input = G.g[0] + 2 * x * G.g[1] - q;
      if (!a.detach_target) g_target = q * slope(x - k.threshold);
    }
    const Vec<S> g_x = pull && a.of_input ? g_pre + g_input + g_target : g_pre;
    if (a.is_static) total += g_x;
    else store(b.current + at, g_x, n);
    sums[0] += g_x;
    if (!a.is_static && a.gain) sums[1] = fused(g_x, load(a.y + at, n) - k.mean, sums[1]);
    if (b.constants) {
      sums[2] += g_pre * before;
      sums[3] -= g_fire + g_target + (a.reset == rmploss::kSoft ? g_u * o : zero);
    }
    g_u = k.decay * g_pre;
  }
  if (a.is_static) {
    store(b.current + row * a.channels + c, total, n);
    if (a.gain) sums[1] += total * (load(a.y + row * a.channels + c, n) - k.mean);
  }
  if (b.start) store(b.start + row * a.channels + c, g_u, n);
}

template <class S, int kind>
RMPLOSS_INLINE void backward_place(const Neurons<S> a, const Backward<S> b, const Surrogate<kind, S> slope, Vec<S>* history,
                                   index_t row, index_t c, int n, S* scratch, index_t padded) {
  const Channels<S> k(a, c, n);
  const MomentGradients<S> G(a, b, c, n);
  Vec<S> sum[4];
  for (int r = 0; r < 4; r++) sum[r] = load(scratch + r * padded + c);
  backward_register<S, kind>(a, b, k, G, slope, history, row, c, n, sum);
  for (int r = 0; r < 4; r++) store(scratch + r * padded + c, sum[r]);
}

template <class S, int kind> void backward_with(const Neurons<S>& a, const Backward<S>& b) {
  const Surrogate<kind, S> slope(a.slope, a.damping);
  in_pieces<S>(a, b.sums, [&](index_t block, index_t end, S* scratch, index_t padded) {
    Vec<S>* history = reinterpret_cast<Vec<S>*>(scratch + 4 * padded);
    const index_t whole = a.channels / kLanes<S> * kLanes<S>;
    for (index_t row = block; row < end; row++) {
      for (index_t c = 0; c < whole; c += kLanes<S>)
        backward_place<S, kind>(a, b, slope, history, row, c, kLanes<S>, scratch, padded);
      if (whole < a.channels)
        backward_place<S, kind>(a, b, slope, history, row, whole, int(a.channels - whole), scratch, padded);
    }
  });
}

template <class S> void lif_backward(const Neurons<S>& a, const Backward<S>& b) {
  switch (a.surrogate) {
    case rmploss::kClippedTanh: return backward_with<S, rmploss::kClippedTanh>(a, b);
    case rmploss::kRectangle: return backward_with<S, rmploss::kRectangle>(a, b);
    case rmploss::kTriangle: return backward_with<S, rmploss::kTriangle>(a, b);
    case rmploss::kSigmoid: return backward_with<S, rmploss::kSigmoid>(a, b);
    default: return backward_with<S, rmploss::kArcTan>(a, b);
  }
}

// Adds a block of `size` values per channel to mean, square (sum of squares about the mean) and count of a piece: Chan's rule.
// sum: about zero; spread, rest: squares and values about sum / size, whose rest tells what rounding left of it.
template <class S>
inline void add_block(const S* sum, const S* spread, const S* rest, double size, index_t channels, double* mean) {
  double *square = mean + channels, *count = square + channels;
  for (index_t c = 0; c < channels; c++) {
    const double correction = double(rest[c]) / size, here = double(S(sum[c] / S(size))) + correction;
    const double seen = count[c], all = seen + size, delta = here - mean[c];
    mean[c] += delta * size / all;
    square[c] += double(spread[c]) - correction * correction * size + delta * delta * seen * size / all;
    count[c] = all;
  }
}

// Mean and variance of blocks of rows, in two passes of which the second finds its block in the cache, then of pieces and
// of all, in double: no cancellation for any mean.
template <class S> void statistics(const S* y, int64_t rows, int64_t channels, double* out, int threads) {
  const index_t kRows = 32, padded = (channels + kLanes<S> - 1) / kLanes<S> * kLanes<S>;
  const index_t blocks = (rows + kRows - 1) / kRows;
  const index_t pieces = smaller(kPieces, blocks);
  const Scratch<double> sums_of_pieces(size_t(pieces * 3 * channels));
  const Scratch<S> scratches(size_t(3 * padded), threads);
  double* partial = sums_of_pieces.data();
  memset(partial, 0, size_t(pieces * 3 * channels) * sizeof(double));
#pragma omp parallel num_threads(threads)
  {
    S* sum = scratches.of(thread_number());
    S *spread = sum + padded, *rest = spread + padded;
#pragma omp for schedule(dynamic)
    for (index_t piece = 0; piece < pieces; piece++)
      for (index_t block = blocks * piece / pieces; block < blocks * (piece + 1) / pieces; block++) {
        const index_t first = block * kRows, last = smaller(first + kRows, rows);
        const S size = S(last - first);
        memset(sum, 0, size_t(3 * padded) * sizeof(S));
        for (index_t row = first; row < last; row++)
          for (index_t c = 0; c < channels; c += kLanes<S>)
            store(sum + c, load(sum + c) + load(y + row * channels + c, int(smaller(kLanes<S>, channels - c))));
        for (index_t row = first; row < last; row++)
          for (index_t c = 0; c < channels; c += kLanes<S>) {
            const Vec<S> d = load(y + row * channels + c, int(smaller(kLanes<S>, channels - c))) - load(sum + c) / size;
            store(spread + c, load(spread + c) + d * d);
            store(rest + c, load(rest + c) + d);
          }
        add_block(sum, spread, rest, double(size), channels, partial + piece * 3 * channels);
      }
  }
  for (index_t c = 0; c < channels; c++) {
    double mean = 0, square = 0, seen = 0;
    for (index_t piece = 0; piece < pieces; piece++) {
      const double* p = partial + piece * 3 * channels + c;
      const double size = p[2 * channels], all = seen + size, delta = p[0] - mean;
      mean += delta * size / all;
      square += p[channels] + delta * delta * seen * size / all;
      seen = all;
    }
    out[c] = mean;
    out[channels + c] = square < 0 ? 0 : square / seen;  // NaN stays NaN
    out[2 * channels + c] = seen;
  }
}

// The coefficients [4, C] of the norm's gradient: gain g_x + shift + slope (y - mean); computed in double, rounded once.
template <class S>
void coefficients(const rmploss::Norm<S>& norm, index_t channels, S* out) {
  const double *mean = norm.statistics, *var = mean + channels, *count = var + channels;
  const double *s_1 = norm.sums, *s_2 = s_1 + channels;
  for (index_t c = 0; c < channels; c++) {
    const double inverse = 1 / sqrt(var[c] + norm.eps), gain = double(norm.weight[c]) * inverse;
    out[c] = S(gain);
    out[channels + c] = S(-gain * s_1[c] / count[c]);
    out[2 * channels + c] = S(-gain * inverse * inverse * s_2[c] / count[c]);
    out[3 * channels + c] = S(mean[c]);
  }
}

template <class S>
void norm_gradient(const rmploss::Norm<S>& norm, const S* g_x, const S* y, int64_t rows, int64_t channels, S* g_y, int threads) {
  const Scratch<S> scratch(size_t(4 * channels));
  const S *gain = scratch.data(), *shift = gain + channels, *slope = shift + channels, *mean = slope + channels;
  coefficients(norm, channels, scratch.data());
#pragma omp parallel for schedule(static) num_threads(threads)
  for (index_t block = 0; block < rows; block += kBlock)
    for (index_t row = block; row < smaller(block + kBlock, rows); row++)
      for (index_t c = 0; c < channels; c += kLanes<S>) {
        const int n = int(smaller(kLanes<S>, channels - c));
        const Vec<S> a = load(gain + c, n), b = load(shift + c, n), s = load(slope + c, n), m = load(mean + c, n);
        const index_t at = row * channels + c;
        store(g_y + at, a * load(g_x + at, n) + b + s * (load(y + at, n) - m), n);
      }
}

}  // namespace

#define RMPLOSS_JOIN2(a, b) a##b
#define RMPLOSS_JOIN(a, b) RMPLOSS_JOIN2(a, b)

namespace rmploss {
void RMPLOSS_JOIN(fill_neuron_, RMPLOSS_ISA)(Kernels& k) {
  k.lif_forward_f = lif_forward<float>;
  k.lif_forward_d = lif_forward<double>;
  k.lif_backward_f = lif_backward<float>;
  k.lif_backward_d = lif_backward<double>;
  k.statistics_f = statistics<float>;
  k.statistics_d = statistics<double>;
  k.norm_gradient_f = norm_gradient<float>;
  k.norm_gradient_d = norm_gradient<double>;
}
}  // namespace rmploss
