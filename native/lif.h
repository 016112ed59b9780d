// LIF neurons over time, forward and backward, with the norm in front of them and the membrane moments in the same pass
// (Eqs. 1-3, 6-10; the recursion of backward is derived in src/rmploss/ops/lif/README.md).
//
// Compiled without contraction of a * b + c: backward recomputes the membrane from the input current, by the same inline
// functions and so with the same bits, and nothing of the membrane is stored in between.
#pragma once
#include "bits.h"
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
constexpr int kTogether = 2;     // registers of channels whose steps overlap: each waits for the membrane of its step before

// Kernels are compiled twice for float, in which is trained: for the neurons that a network has most, and for all others.
template <bool> struct Usual {};
template <class S, class Run> void run_for(bool usual, const Run& run) {
  if constexpr (sizeof(S) == sizeof(float))
    if (usual) return run(Usual<true>{});
  run(Usual<false>{});
}

// The neurons that a network has most: the paper's.
template <class S> bool is_usual(const Neurons<S>& a) {
  const bool moments = !a.of_input && a.detach_target && a.p == 2;
  return a.reset == rmploss::kHard && moments && !a.residual && !a.start && !a.is_static;
}

// A copy in which the compiler knows what is_usual found: nothing of it is asked again in the inner loops.
template <bool usual, class S> RMPLOSS_INLINE Neurons<S> known(Neurons<S> a) {
  if (!usual) return a;
  a.reset = rmploss::kHard;
  a.of_input = a.is_static = false;
  a.detach_target = true;
  a.p = 2;
  a.residual = a.start = nullptr;
  return a;
}

// 1 / sqrt(var + eps) of a channel, from statistics [3, C].
inline double inverse_deviation(const double* statistics, index_t channels, double eps, index_t c) {
  return 1 / sqrt(statistics[channels + c] + eps);
}

// The neurons with the mean and gain of their statistics, computed in double and rounded once.
template <class S> class Normalized {
 public:
  explicit Normalized(const Neurons<S>& given) : memory_(given.statistics ? size_t(2 * given.channels) : 0), a_(given) {
    if (!given.statistics) return;
    S *mean = memory_.data(), *gain = mean + given.channels;
    for (index_t c = 0; c < given.channels; c++) {
      mean[c] = S(given.statistics[c]);
      gain[c] = S(double(given.gain[c]) * inverse_deviation(given.statistics, given.channels, given.eps, c));
    }
    a_.mean = mean;
    a_.gain = gain;
  }
  const Neurons<S>& operator()() const { return a_; }

 private:
  Scratch<S> memory_;
  Neurons<S> a_;
};

// Constants of one register of channels.
template <class S> struct Channels {
  Vec<S> mean{}, gain{}, bias{}, decay{}, threshold{}, reset{};  // reset: the potential after it, or what it subtracts
  Channels() = default;
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

// x(t) of one register, from that of y(t).
template <class S>
RMPLOSS_INLINE Vec<S> transformed(const Neurons<S>& a, const Channels<S>& k, Vec<S> x, index_t t, index_t row, index_t c, int n) {
  if (a.mean) x -= k.mean;
  if (a.gain) x *= k.gain;
  if (a.bias) x += k.bias;
  if (a.residual) x += load(a.residual + (t * a.rows + row) * a.channels + c, n);
  if (a.residual_bits) {
    const index_t words = (a.channels + 63) / 64;
    x += spread(a.residual_bits[(t * a.rows + row) * words + c / 64] >> (c % 64), Vec<S>{});
  }
  return x;
}

// x(t) of one register.
template <class S>
RMPLOSS_INLINE Vec<S> current(const Neurons<S>& a, const Channels<S>& k, index_t t, index_t row, index_t c, int n) {
  const index_t at = ((a.is_static ? 0 : t * a.rows) + row) * a.channels + c;
  return transformed(a, k, load(a.y + at, n), t, row, c, n);
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

// sum + |d|^p (Eq. 9).
template <class S> RMPLOSS_INLINE Vec<S> plus_distance(Vec<S> sum, Vec<S> d, S p) {
  if (p == 2) return fused(d, d, sum);
  d = absolute<S>(d);
  if (p == 1) return sum + d;
  return sum + (d == Vec<S>{} ? Vec<S>{} : power<S>(d, p));
}

// p |d|^(p-1) sign(d); 0 at d = 0.
template <class S> RMPLOSS_INLINE Vec<S> distance_slope(Vec<S> d, S p) {
  if (p == 2) return 2 * d;
  const Vec<S> zero = {};
  const Vec<S> sign = d > zero ? splat(S(1)) : d < zero ? splat(S(-1)) : zero;
  if (p == 1) return sign;
  return d == zero ? zero : p * power<S>(absolute<S>(d), p - 1) * sign;
}

// The bits of some registers to their word. The registers of a row come in the order of their channels, so the first of a word sets
// it and the others add to it.
template <class S>
RMPLOSS_INLINE void store_bits(const Neurons<S>& a, uint64_t* bits, uint64_t found, index_t t, index_t row, index_t c) {
  uint64_t& word = bits[(t * a.rows + row) * words_of(a.channels) + c / 64];
  if (c % 64 == 0) word = found;
  else word |= found << (c % 64);
}

// Some registers of channels from c on, of one row; all of n lanes.
template <class S, int count>
RMPLOSS_INLINE int64_t forward_registers(const Neurons<S>& a, const Forward<S>& f, const Channels<S>* k, index_t row,
                                         index_t c, int n, Moments<S>* m) {
  // Lanes beyond the last channel have a potential, too, but no bit.
  const uint64_t lanes = n < kLanes<S> ? (uint64_t(1) << n) - 1 : ~uint64_t(0);
  int64_t spikes = 0;
  Vec<S> u[count];
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) u[i] = initial(a, row, c + i * kLanes<S>, n);
  for (index_t t = 0; t < a.steps; t++) {
    uint64_t found = 0;
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
      const index_t here = c + i * kLanes<S>;
      const Vec<S> x = current(a, k[i], t, row, here, n);
      const Vec<S> pre = charge<S>(k[i], u[i], x), o = fire<S>(k[i], pre);
      if (f.spikes) store(f.spikes + (t * a.rows + row) * a.channels + here, o, n);
      if (f.bits) found |= (bits_of<S>(o) & lanes) << (i * kLanes<S>);
      if (a.moments) {
        const Vec<S> potential = a.of_input ? x : pre;
        const Vec<S> target = a.of_input ? fire<S>(k[i], x) : o;
        m[i].sum[0] += potential;
        m[i].sum[1] = fused(potential, potential, m[i].sum[1]);
        m[i].sum[2] = plus_distance<S>(m[i].sum[2], target - potential, a.p);
        m[i].sum[3] += o;
      }
      u[i] = after_reset(a, k[i], pre, o);
    }
    if (f.bits) {
      store_bits(a, f.bits, found, t, row, c);
      spikes += __builtin_popcountll(found);
    }
  }
  if (f.last)
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) store(f.last + row * a.channels + c + i * kLanes<S>, u[i], n);
  return spikes;
}

// Calls work(first row, last row, scratch, padded) for blocks of rows, in parallel. scratch holds four sums per channel
// (arrays of `padded` channels), then two registers per time step and register of channels. A block's sums are added to its
// piece's in double, the pieces' to sums [4, C] in their order.
template <class S, class Work>
inline void in_pieces(const Neurons<S>& a, S* sums, const Work& work) {
  const index_t C = a.channels, blocks = (a.rows + kBlock - 1) / kBlock;
  const index_t pieces = smaller(kPieces, blocks), padded = (C + kLanes<S> - 1) / kLanes<S> * kLanes<S>;
  const Scratch<double> sums_of_pieces(size_t(pieces * 4 * C));
  const Scratch<S> scratches(size_t(4 * padded + 2 * a.steps * kTogether * kLanes<S>), a.threads);
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

// Arguments are copied and sums travel by value: a store through a pointer could otherwise change them for all that the
// compiler knows. scratch: the sums of some rows, four arrays of `padded` channels.
template <class S, int count>
RMPLOSS_INLINE int64_t forward_place(const Neurons<S>& a, const Forward<S>& f, index_t row, index_t c, int n, S* scratch,
                                     index_t padded) {
  Channels<S> k[count];
  Moments<S> m[count];
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) {
    const index_t here = c + i * kLanes<S>;
    k[i] = Channels<S>(a, here, n);
    if (a.moments)
      for (int r = 0; r < 4; r++) m[i].sum[r] = load(scratch + r * padded + here);
  }
  const int64_t spikes = forward_registers<S, count>(a, f, k, row, c, n, m);
  if (a.moments)
#pragma GCC unroll 4
    for (int i = 0; i < count; i++)
      for (int r = 0; r < 4; r++) store(scratch + r * padded + c + i * kLanes<S>, m[i].sum[r]);
  return spikes;
}

// Rows first, channels inside: every array is read and written in the order of its memory.
template <bool usual, class S> void forward_with(const Neurons<S>& all, const Forward<S>& given) {
  int64_t total = 0;
  in_pieces<S>(all, given.moments, [&](index_t block, index_t end, S* scratch, index_t padded) {
    const Neurons<S> a = known<usual>(all);
    const Forward<S> f = given;
    int64_t spikes = 0;
    for (index_t row = block; row < end; row++) {
      along_channels<S, kTogether>(a.channels, [&]<int count>(index_t c, int n, Count<count>) RMPLOSS_INLINE_LAMBDA {
        spikes += forward_place<S, count>(a, f, row, c, n, scratch, padded);
      });
    }
#pragma omp atomic
    total += spikes;
  });
  if (given.bits) *given.count = total;
}

template <class S> void lif_forward(const Neurons<S>& given, const Forward<S>& f) {
  const Normalized<S> normalized(given);
  const Neurons<S>& a = normalized();
  run_for<S>(is_usual(a), [&]<bool usual>(Usual<usual>) { forward_with<usual>(a, f); });
}

// The gradient of the moments of one register of channels.
template <class S> struct MomentGradients {
  Vec<S> g[4] = {};
  MomentGradients() = default;
  MomentGradients(const Neurons<S>& a, const Backward<S>& b, index_t c, int n) {
    for (int r = 0; r < 4; r++) g[r] = b.moments ? load(b.moments + r * a.channels + c, n) : Vec<S>{};
  }
};

// u_pre of every step, and the membrane before it where constants are learnt.
template <class S, int count> struct History {
  Vec<S>* memory;
  RMPLOSS_INLINE Vec<S>& pre(index_t t, int i) const { return memory[2 * (t * count + i)]; }
  RMPLOSS_INLINE Vec<S>& before(index_t t, int i) const { return memory[2 * (t * count + i) + 1]; }
};

// The recursion for one register and step: u_pre, the gradient of the membrane after the step; returns that of the one
// before it, and adds to the sums.
template <class S, int kind>
RMPLOSS_INLINE Vec<S> backward_step(const Neurons<S>& a, const Backward<S>& b, const Channels<S>& k, const MomentGradients<S>& G,
                                    const Surrogate<kind, S>& slope, Vec<S> pre, const Vec<S>* before, Vec<S> g_u, index_t t,
                                    index_t row, index_t c, int n, Vec<S>* sums, Vec<S>& total) {
  const Vec<S> zero = {};
  const index_t at = (t * a.rows + row) * a.channels + c;
  const bool pull = b.moments != nullptr;
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
  if (before) {
    sums[2] += g_pre * *before;
    sums[3] -= g_fire + g_target + (a.reset == rmploss::kSoft ? g_u * o : zero);
  }
  return k.decay * g_pre;
}

template <class S, int kind, int count>
RMPLOSS_INLINE void backward_registers(const Neurons<S>& a, const Backward<S>& b, const Channels<S>* k,
                                       const MomentGradients<S>* G, const Surrogate<kind, S>& slope,
                                       const History<S, count> history, index_t row, index_t c, int n, Vec<S> (*sums)[4]) {
  Vec<S> u[count], g_u[count], total[count];
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) u[i] = initial(a, row, c + i * kLanes<S>, n);
  for (index_t t = 0; t < a.steps; t++)
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
      const Vec<S> pre = charge<S>(k[i], u[i], current(a, k[i], t, row, c + i * kLanes<S>, n));
      history.pre(t, i) = pre;
      if (b.constants) history.before(t, i) = u[i];
      u[i] = after_reset<S>(a, k[i], pre, fire<S>(k[i], pre));
    }
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) {
    g_u[i] = b.last ? load(b.last + row * a.channels + c + i * kLanes<S>, n) : Vec<S>{};
    total[i] = Vec<S>{};
  }
  for (index_t t = a.steps - 1; t >= 0; t--)
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
      const Vec<S>* before = b.constants ? &history.before(t, i) : nullptr;
      g_u[i] = backward_step<S, kind>(a, b, k[i], G[i], slope, history.pre(t, i), before, g_u[i], t, row, c + i * kLanes<S>,
                                      n, sums[i], total[i]);
    }
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) {
    const index_t at = row * a.channels + c + i * kLanes<S>;
    if (a.is_static) {
      store(b.current + at, total[i], n);
      if (a.gain) sums[i][1] += total[i] * (load(a.y + at, n) - k[i].mean);
    }
    if (b.start) store(b.start + at, g_u[i], n);
  }
}

template <class S, int kind, int count>
RMPLOSS_INLINE void backward_place(const Neurons<S>& a, const Backward<S>& b, const Surrogate<kind, S>& slope, index_t row,
                                   index_t c, int n, S* scratch, index_t padded) {
  const History<S, count> history{reinterpret_cast<Vec<S>*>(scratch + 4 * padded)};
  Channels<S> k[count];
  MomentGradients<S> G[count];
  Vec<S> sums[count][4];
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) {
    const index_t here = c + i * kLanes<S>;
    k[i] = Channels<S>(a, here, n);
    G[i] = MomentGradients<S>(a, b, here, n);
    for (int r = 0; r < 4; r++) sums[i][r] = load(scratch + r * padded + here);
  }
  backward_registers<S, kind, count>(a, b, k, G, slope, history, row, c, n, sums);
#pragma GCC unroll 4
  for (int i = 0; i < count; i++)
    for (int r = 0; r < (b.constants ? 4 : 2); r++) store(scratch + r * padded + c + i * kLanes<S>, sums[i][r]);
}

template <bool usual, class S, int kind> void backward_with(const Neurons<S>& all, const Backward<S>& given) {
  in_pieces<S>(all, given.sums, [&](index_t block, index_t end, S* scratch, index_t padded) {
    const Neurons<S> a = known<usual>(all);
    Backward<S> b = given;
    if (usual) b.constants = false;
    const Surrogate<kind, S> slope(a.slope, a.damping);
    for (index_t row = block; row < end; row++)
      along_channels<S, kTogether>(a.channels, [&]<int count>(index_t c, int n, Count<count>) RMPLOSS_INLINE_LAMBDA {
        backward_place<S, kind, count>(a, b, slope, row, c, n, scratch, padded);
      });
  });
}

template <class S, int kind> void backward_of(const Neurons<S>& a, const Backward<S>& b) {
  run_for<S>(is_usual(a) && !b.constants, [&]<bool usual>(Usual<usual>) { backward_with<usual, S, kind>(a, b); });
}

template <class S> void lif_backward(const Neurons<S>& given, const Backward<S>& b) {
  const Normalized<S> normalized(given);
  const Neurons<S>& a = normalized();
  switch (a.surrogate) {
    case rmploss::kClippedTanh: backward_of<S, rmploss::kClippedTanh>(a, b); break;
    case rmploss::kRectangle: backward_of<S, rmploss::kRectangle>(a, b); break;
    case rmploss::kTriangle: backward_of<S, rmploss::kTriangle>(a, b); break;
    case rmploss::kSigmoid: backward_of<S, rmploss::kSigmoid>(a, b); break;
    default: backward_of<S, rmploss::kArcTan>(a, b);
  }
  if (a.statistics)
    for (index_t c = 0; c < a.channels; c++) b.sums[a.channels + c] *= S(inverse_deviation(a.statistics, a.channels, a.eps, c));
}

}  // namespace
