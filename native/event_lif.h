// A layer for inference in one pass: the event-driven convolution (event.h) and the neurons that read it (lif.h, Eqs. 1-3). The
// currents of a pixel at all steps stay in the cache from the first spike that is added to them until its neurons have fired; they
// are never written, the spikes leave as bits. Every sum has the order of event.h, so every spike is that of the two kernels.
//
// The weights are cut into blocks once for many calls: at one image that alone took longer than the convolution.
#pragma once
#include "lif.h"
#include "memory.h"
#include "rows.h"

namespace {

constexpr index_t kCurrents = 64;       // pixels x steps whose currents are computed together: they share a reading of the weights
constexpr index_t kManyCurrents = 256;  // ... of weights that the second-level cache does not hold

inline index_t strips_of(const Convolution& c, index_t columns) { return (c.out_channels + columns - 1) / columns; }

// How many floats the blocks of a convolution's weights are.
inline int64_t blocks_size(const Convolution& c) {
  const index_t columns = strip_of(c.out_channels) * kWidth;
  return strips_of(c, columns) * words_of(c.channels) * c.kernel_height * c.kernel_width * 64 * columns;
}

inline void make_blocks(const Convolution& c, const float* weight, float* blocks) {
  block_weights(c, weight, strip_of(c.out_channels) * kWidth, blocks);
}

// Some pixels at all steps: spikes[tap][word][step][pixel], the bits under every tap.
struct Piece {
  index_t first, count;  // pixels of one step
  uint64_t* spikes;
};

inline void gather(const Convolution& c, index_t steps, const uint64_t* bits, const Piece& p) {
  const index_t words = words_of(c.channels), step = c.images / steps * c.height * c.width * words;
  Window window{c, bits, words, {}, {}, {}, 0};
  window.move(p.first, int(p.count));
  uint64_t* to = p.spikes;
  for (index_t tap = 0; tap < c.kernel_height * c.kernel_width; tap++) {
    uint64_t inside[kPixels];
    index_t at[kPixels];
    window.find(tap, inside, at);
    for (index_t w = 0; w < words; w++)
      for (index_t t = 0; t < steps; t++)
        for (index_t i = 0; i < p.count; i++) *to++ = bits[t * step + at[i] + w] & inside[i];
  }
}

// The currents [steps][pixels][columns of a strip] of a piece, without the bias.
template <int NV>
inline void add_spikes(const Piece& p, index_t steps, index_t words, index_t taps, const float* strip, float* currents) {
  constexpr index_t columns = NV * kWidth;
  const index_t all = p.count * steps;
  memset(currents, 0, size_t(all * columns) * sizeof(float));
  for (index_t w = 0; w < words; w++)
    for (index_t tap = 0; tap < taps; tap++) {
      const float* rows = strip + (w * taps + tap) * 64 * columns;
      const uint64_t* spikes = p.spikes + (tap * words + w) * all;
      for (index_t i = 0; i < all; i++)
        if (spikes[i]) add_rows<NV>(spikes[i], rows, currents + i * columns);
    }
}

// The neurons of one register of channels, from c on: adds their spikes to the words of `fired` [steps][pixels].
inline void fire_register(const Neurons<float>& a, const Piece& p, index_t c, int n, const float* currents, index_t columns,
                          const float* bias, uint64_t* fired) {
  const Channels<float> k(a, c, n);
  const vfloat add = bias ? load(bias + c, n) : vfloat{};
  const uint64_t lanes = n < kWidth ? (uint64_t(1) << n) - 1 : ~uint64_t(0);
  for (index_t i = 0; i < p.count; i++) {
    const index_t row = p.first + i;
    vfloat u = initial(a, row, c, n);
    for (index_t t = 0; t < a.steps; t++) {
      vfloat x = load(currents + (t * p.count + i) * columns);
      if (bias) x += add;
      const vfloat pre = charge<float>(k, u, transformed(a, k, x, t, row, c, n)), o = fire<float>(k, pre);
      fired[t * p.count + i] |= (bits_of<float>(o) & lanes) << (c % 64);
      u = after_reset(a, k, pre, o);
    }
  }
}

template <int NV>
void event_lif_strips(const Convolution& c, const Neurons<float>& a, const uint64_t* bits, const float* blocks, const float* bias,
                      const Forward<float>& f) {
  constexpr index_t columns = NV * kWidth;
  static_assert(64 % columns == 0, "a word of spikes is made of whole strips");
  const index_t taps = c.kernel_height * c.kernel_width, words = words_of(c.channels), out_words = words_of(c.out_channels);
  const index_t strips = strips_of(c, columns), strip_size = words * taps * 64 * columns;
  const index_t together = strips * strip_size * index_t(sizeof(float)) > kSecondLevel ? kManyCurrents : kCurrents;
  const index_t pixels = larger(1, smaller(together / a.steps, kPixels)), pieces = (a.rows + pixels - 1) / pixels;
  const Scratch<uint64_t> gathered(size_t((taps * words + 1) * pixels * a.steps), c.threads);
  const Scratch<float> memory(size_t(pixels * a.steps * columns), c.threads);
  int64_t total = 0;
#pragma omp parallel num_threads(c.threads) reduction(+ : total)
  {
    uint64_t *spikes = gathered.of(thread_number()), *fired = spikes + taps * words * pixels * a.steps;
    float* currents = memory.of(thread_number());
    index_t last = -1;
#pragma omp for schedule(dynamic)
    for (index_t unit = 0; unit < pieces * out_words; unit++) {
      const index_t piece = unit / out_words, word = unit % out_words;
      const Piece p{piece * pixels, smaller(pixels, a.rows - piece * pixels), spikes};
      if (piece != last) gather(c, a.steps, bits, p);
      last = piece;
      memset(fired, 0, size_t(p.count * a.steps) * sizeof(uint64_t));
      for (index_t s = word * 64 / columns; s < smaller(strips, (word + 1) * 64 / columns); s++) {
        add_spikes<NV>(p, a.steps, words, taps, blocks + s * strip_size, currents);
        for (index_t o = 0; o < smaller(columns, c.out_channels - s * columns); o += kWidth) {
          const index_t first = s * columns + o;
          fire_register(a, p, first, int(smaller(kWidth, c.out_channels - first)), currents + o, columns, bias, fired);
        }
      }
      for (index_t t = 0; t < a.steps; t++)
        for (index_t i = 0; i < p.count; i++) {
          const uint64_t found = fired[t * p.count + i];
          f.bits[(t * a.rows + p.first + i) * out_words + word] = found;
          total += __builtin_popcountll(found);
        }
    }
  }
  *f.count = total;
}

inline uint64_t mixed(uint64_t before, uint64_t x) {
  before = (before ^ x) * 0x9e3779b97f4a7c15ull;
  return before ^ before >> 32;
}

// A number by which changed values are told from the same ones: every lane of a register is mixed with its values in their order, and
// the lanes with one another. Each step is a bijection of what was mixed before, so a single value that changes always changes it.
inline uint64_t fingerprint_piece(const float* x, index_t n) {
  typedef uint32_t vbits __attribute__((vector_size(RMPLOSS_BYTES)));
  constexpr int together = 4;
  vbits h[together] = {};
  const auto mix = [](vbits& to, vfloat v) {
    to = (to ^ (vbits)v) * 0x85ebca6bu;
    to ^= to >> 15;
  };
  index_t i = 0;
  for (; i + together * kWidth <= n; i += together * kWidth)
    for (int k = 0; k < together; k++) mix(h[k], load(x + i + k * kWidth));
  for (; i < n; i += kWidth) mix(h[0], load(x + i, int(smaller(kWidth, n - i))));
  uint64_t found = 0;
  for (int k = 0; k < together; k++)
    for (int lane = 0; lane < kWidth; lane++) found = mixed(found, h[k][lane]);
  return found;
}

// The same of any number of values, in pieces that do not depend on the number of threads.
uint64_t fingerprint(const float* x, int64_t n, int threads) {
  constexpr index_t piece = 1 << 16;
  const index_t pieces = (n + piece - 1) / piece;
  if (pieces == 1) return fingerprint_piece(x, n);
  const Scratch<uint64_t> each(size_t(larger(1, pieces)));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (index_t i = 0; i < pieces; i++) each.data()[i] = fingerprint_piece(x + i * piece, smaller(piece, n - i * piece));
  uint64_t found = 0;
  for (index_t i = 0; i < pieces; i++) found = mixed(found, each.data()[i]);
  return found;
}

// bits: the input of all steps [steps B H W, words]; blocks: of make_blocks; f.bits and f.count are written, nothing else.
void event_lif(const Convolution& c, const Neurons<float>& a, const uint64_t* bits, const float* blocks, const float* bias,
               const Forward<float>& f) {
  const int nv = strip_of(c.out_channels);
  if (nv == 1) event_lif_strips<1>(c, a, bits, blocks, bias, f);
  else if (nv == 2) event_lif_strips<2>(c, a, bits, blocks, bias, f);
  else event_lif_strips<kStrip>(c, a, bits, blocks, bias, f);
}

}  // namespace
