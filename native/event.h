// Event-driven convolution: a spike adds one row of weights to the output (forward), or one row of the output's gradient
// to the weight's (backward). Nothing is multiplied, silent inputs cost nothing.
//
// Both are the same product of a matrix of bits with a matrix of floats, tap by tap of the kernel:
//     forward           y[pixels, C']    += bits[pixels, C] W_tap[C, C']
//     weight gradient   dW_tap[C, C']    += bits[pixels, C]^T g_y[pixels, C']
// cut into blocks of 64 rows by one strip of columns, so that the block of rows that spikes choose from (16 KiB with
// AVX-512) stays in the first-level cache while a strip of accumulators stays in registers.
#pragma once
#include "memory.h"
#include "rows.h"

namespace {

using rmploss::Scratch;

template <int NV>
void event_forward_strips(const Convolution& c, const uint64_t* bits, const float* blocks, const float* bias, float* y) {
  constexpr index_t columns = NV * kWidth;
  const index_t taps = c.kernel_height * c.kernel_width, words = words_of(c.channels);
  const index_t strips = (c.out_channels + columns - 1) / columns, strip_size = words * taps * 64 * columns;
  const index_t pixels = c.images * c.out_height * c.out_width;
  // Few pixels share one reading of the weights when these are larger than the second-level cache.
  const index_t group = strips * strip_size * index_t(sizeof(float)) > kSecondLevel ? 4 : 1;
  const index_t step = group * kPixels, pieces = (pixels + step - 1) / step;
  const Scratch<uint64_t> bit_scratch(size_t(group * taps * words * kPixels), c.threads);
  const Scratch<float> accumulators(size_t(step * columns), c.threads);
#pragma omp parallel num_threads(c.threads)
  {
    uint64_t* gathered = bit_scratch.of(thread_number());
    float* acc = accumulators.of(thread_number());
    Window window{c, bits, words, {}, {}, {}, 0};
#pragma omp for schedule(dynamic)
    for (index_t piece = 0; piece < pieces; piece++) {
      const index_t first = piece * step, count = smaller(step, pixels - first);
      for (index_t g = 0; g * kPixels < count; g++) {
        window.move(first + g * kPixels, int(smaller(kPixels, count - g * kPixels)));
        for (index_t tap = 0; tap < taps; tap++) window.gather(tap, 0, words, gathered + (g * taps + tap) * words * kPixels);
      }
      for (index_t s = 0; s < strips; s++) {
        const index_t wide = smaller(columns, c.out_channels - s * columns);
        memset(acc, 0, size_t(count * columns) * sizeof(float));
        for (index_t w = 0; w < words; w++)
          for (index_t tap = 0; tap < taps; tap++) {
            const float* rows = blocks + s * strip_size + (w * taps + tap) * 64 * columns;
            for (index_t i = 0; i < count; i++) {
              const uint64_t spikes = gathered[((i / kPixels * taps + tap) * words + w) * kPixels + i % kPixels];
              if (spikes) add_rows<NV>(spikes, rows, acc + i * columns);
            }
          }
        for (index_t i = 0; i < count; i++) {
          float* to = y + (first + i) * c.out_channels + s * columns;
          for (index_t o = 0; o < wide; o += kWidth) {
            const int n = int(smaller(kWidth, wide - o));
            vfloat v = load(acc + i * columns + o);
            if (bias) v += load(bias + s * columns + o, n);
            store(to + o, v, n);
          }
        }
      }
    }
  }
}

void event_forward(const Convolution& c, const uint64_t* bits, const float* weight, const float* bias, float* y) {
  const int nv = strip_of(c.out_channels);
  const index_t columns = nv * kWidth, strips = (c.out_channels + columns - 1) / columns;
  const Scratch<float> memory(size_t(strips * words_of(c.channels) * c.kernel_height * c.kernel_width * 64 * columns));
  float* blocks = memory.data();
  block_weights(c, weight, columns, blocks);
  if (nv == 1) event_forward_strips<1>(c, bits, blocks, bias, y);
  else if (nv == 2) event_forward_strips<2>(c, bits, blocks, bias, y);
  else event_forward_strips<kStrip>(c, bits, blocks, bias, y);
}

// One unit of the weight gradient: a word of input channels over a range of pixels; dW [strip][tap][64][columns]. The rows of
// g_y that spikes choose from stay in the first-level cache for all taps.
template <int NV>
void event_weight_unit(const Convolution& c, const float* g_y, index_t word, index_t first, index_t last, Window& window,
                       uint64_t* turned, float* rows, float* dW) {
  constexpr index_t columns = NV * kWidth;
  const index_t taps = c.kernel_height * c.kernel_width;
  const index_t strips = (c.out_channels + columns - 1) / columns;
  for (index_t start = first; start < last; start += kPixels) {
    const index_t count = smaller(kPixels, last - start);
    window.move(start, int(count));
    for (index_t tap = 0; tap < taps; tap++) {
      window.gather(tap, word, word + 1, turned + tap * 64);
      transpose64(turned + tap * 64);
    }
    for (index_t s = 0; s < strips; s++) {
      const index_t wide = smaller(columns, c.out_channels - s * columns);
      for (index_t i = 0; i < count; i++)
        for (index_t o = 0; o < columns; o += kWidth) {
          const index_t n = smaller(kWidth, wide - o);
          store(rows + i * columns + o,
                n > 0 ? load(g_y + (start + i) * c.out_channels + s * columns + o, int(n)) : vfloat{});
        }
      for (index_t tap = 0; tap < taps; tap++) {
        const uint64_t* spikes = turned + tap * 64;
        float* block = dW + (s * taps + tap) * 64 * columns;
        for (int i = 0; i < 64; i++)
          if (spikes[i]) add_rows<NV>(spikes[i], rows, block + i * columns);
      }
    }
  }
}

template <int NV>
void event_weight_gradient_strips(const Convolution& c, const uint64_t* bits, const float* g_y, float* g_weight) {
  constexpr index_t columns = NV * kWidth;
  const index_t taps = c.kernel_height * c.kernel_width, words = words_of(c.channels);
  const index_t strips = (c.out_channels + columns - 1) / columns, unit_size = strips * taps * 64 * columns;
  const index_t pixels = c.images * c.out_height * c.out_width, chunks = (pixels + kPixels - 1) / kPixels;
  const index_t groups = larger(1, smaller(32 / words, chunks / 8));
  const Scratch<float> memory(size_t(groups * words * unit_size));
  const Scratch<uint64_t> bit_scratch(size_t(taps * 64), c.threads);
  const Scratch<float> row_scratch(size_t(kPixels * columns), c.threads);
  float* partial = memory.data();
#pragma omp parallel num_threads(c.threads)
  {
    uint64_t* turned = bit_scratch.of(thread_number());
    float* rows = row_scratch.of(thread_number());
    Window window{c, bits, words, {}, {}, {}, 0};
#pragma omp for schedule(dynamic)
    for (index_t unit = 0; unit < groups * words; unit++) {
      const index_t group = unit / words, word = unit % words;
      float* dW = partial + unit * unit_size;
      memset(dW, 0, size_t(unit_size) * sizeof(float));
      event_weight_unit<NV>(c, g_y, word, chunks * group / groups * kPixels,
                            smaller(chunks * (group + 1) / groups * kPixels, pixels), window, turned, rows, dW);
    }
    // The groups in their order, into [C', C, taps].
#pragma omp for collapse(2) schedule(static)
    for (index_t word = 0; word < words; word++)
      for (index_t s = 0; s < strips; s++) {
        const index_t inputs = smaller(64, c.channels - word * 64), wide = smaller(columns, c.out_channels - s * columns);
        const index_t size = taps * 64 * columns;
        float* sum = partial + word * unit_size + s * size;
        for (index_t group = 1; group < groups; group++) {
          const float* other = sum + group * words * unit_size;
          for (index_t i = 0; i < size; i += kWidth) store(sum + i, load(sum + i) + load(other + i));
        }
        float* to = g_weight + (s * columns * c.channels + word * 64) * taps;
        for (index_t at = 0; at < inputs * taps; at += kWidth)
          for (index_t o = 0; o < wide; o += kWidth) {
            const int rows = int(smaller(kWidth, inputs * taps - at)), lanes = int(smaller(kWidth, wide - o));
            vfloat v[kWidth];
            for (int i = 0; i < kWidth; i++) {
              const index_t row = (at + i) % taps * 64 + (at + i) / taps;
              v[i] = i < rows ? load(sum + row * columns + o) : vfloat{};
            }
            transpose(v);
            for (int i = 0; i < lanes; i++) store(to + (o + i) * c.channels * taps + at, v[i], rows);
          }
      }
  }
}

void event_weight_gradient(const Convolution& c, const uint64_t* bits, const float* g_y, float* g_weight) {
  const int nv = strip_of(c.out_channels);
  if (nv == 1) event_weight_gradient_strips<1>(c, bits, g_y, g_weight);
  else if (nv == 2) event_weight_gradient_strips<2>(c, bits, g_y, g_weight);
  else event_weight_gradient_strips<kStrip>(c, bits, g_y, g_weight);
}

int64_t pack(const float* x, int64_t rows, int64_t channels, uint64_t* bits, int threads) {
  const index_t words = words_of(channels);
  int64_t spikes = 0, wrong = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : spikes, wrong)
  for (index_t row = 0; row < rows; row++) {
    Mask<float> bad = {};
    for (index_t w = 0; w < words; w++) {
      uint64_t word = 0;
      const index_t first = w * 64, last = smaller(first + 64, channels);
      for (index_t c = first; c < last; c += kWidth)
        word |= nonzero(load(x + row * channels + c, int(smaller(kWidth, last - c))), bad) << (c - first);
      bits[row * words + w] = word;
      spikes += __builtin_popcountll(word);
    }
    for (int i = 0; i < kWidth; i++) wrong += bad[i] != 0;
  }
  return wrong ? -1 : spikes;
}

void unpack(const uint64_t* bits, int64_t rows, int64_t channels, float* x, int threads) {
  const index_t words = words_of(channels);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (index_t row = 0; row < rows; row++)
    for (index_t c = 0; c < channels; c += kWidth) {
      const int n = int(smaller(kWidth, channels - c));
      store(x + row * channels + c, spread(bits[row * words + c / 64] >> (c % 64), vfloat{}), n);
    }
}

// means [rows / 4, C] over 2x2 squares of maps whose means are `width` pixels wide; every sum and quotient is exact.
void pool(const uint64_t* bits, int64_t rows, int64_t width, int64_t channels, float* means, int threads) {
  const index_t words = words_of(channels), across = 2 * width;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (index_t row = 0; row < rows / 4; row++) {
    const index_t first = (row / width * 2 * across + row % width * 2) * words;
    for (index_t c = 0; c < channels; c += kWidth) {
      const index_t at = first + c / 64, place = c % 64;
      vfloat sum = spread(bits[at] >> place, vfloat{}) + spread(bits[at + words] >> place, vfloat{});
      sum += spread(bits[at + across * words] >> place, vfloat{}) + spread(bits[at + (across + 1) * words] >> place, vfloat{});
      store(means + row * channels + c, 0.25f * sum, int(smaller(kWidth, channels - c)));
    }
  }
}

}  // namespace
