// tdBN (Eqs. 6-7): mean and variance per channel, and the gradient.
#pragma once
#include "lif.h"

namespace {

constexpr index_t kStatisticsRows = 32;  // of a block, whose second reading finds it in the cache

// Of one block of rows, per channel: center, a rounded mean; spread and rest, the sums of (y - center)^2 and y - center.
template <class S> struct BlockSums {
  S *center, *spread, *rest;
};

// Some registers of channels of a block, n lanes each: sums in registers, in two readings.
template <class S, int count>
RMPLOSS_INLINE void block_sums(const S* y, index_t rows, index_t channels, index_t c, int n, const BlockSums<S>& out) {
  Vec<S> center[count] = {}, spread[count] = {}, rest[count] = {};
  for (index_t row = 0; row < rows; row++)
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) center[i] += load(y + row * channels + c + i * kLanes<S>, n);
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) center[i] /= S(rows);
  for (index_t row = 0; row < rows; row++)
#pragma GCC unroll 4
    for (int i = 0; i < count; i++) {
      const Vec<S> d = load(y + row * channels + c + i * kLanes<S>, n) - center[i];
      spread[i] += d * d;
      rest[i] += d;
    }
#pragma GCC unroll 4
  for (int i = 0; i < count; i++) {
    const index_t here = c + i * kLanes<S>;
    store(out.center + here, center[i]);
    store(out.spread + here, spread[i]);
    store(out.rest + here, rest[i]);
  }
}

// Adds a block of `size` values per channel to the mean and the square (the sum of squares about it) of the `seen` values
// before: Chan's rule. The rest tells what rounding left of a block's mean.
template <class S>
inline void add_block(const BlockSums<S>& block, double size, double seen, index_t channels, double* mean, double* square) {
  const double share = size / (seen + size), between = seen * share, per_value = 1 / size;
  for (index_t c = 0; c < channels; c++) {
    const double rest = double(block.rest[c]), correction = rest * per_value;
    const double delta = double(block.center[c]) + correction - mean[c];
    mean[c] += delta * share;
    square[c] += double(block.spread[c]) - correction * rest + delta * delta * between;
  }
}

// Mean and variance of blocks of rows, then of pieces and of all, in double: no cancellation for any mean.
template <class S> void statistics(const S* y, int64_t rows, int64_t channels, double* out, int threads) {
  const index_t padded = (channels + kLanes<S> - 1) / kLanes<S> * kLanes<S>;
  const index_t blocks = (rows + kStatisticsRows - 1) / kStatisticsRows, pieces = smaller(kPieces, blocks);
  const auto begin = [=](index_t piece) { return smaller(blocks * piece / pieces * kStatisticsRows, rows); };
  const Scratch<double> of_pieces(size_t(pieces * 2 * channels));
  const Scratch<S> scratches(size_t(3 * padded), threads);
  double* partial = of_pieces.data();
  memset(partial, 0, size_t(pieces * 2 * channels) * sizeof(double));
#pragma omp parallel num_threads(threads)
  {
    S* scratch = scratches.of(thread_number());
    const BlockSums<S> sums{scratch, scratch + padded, scratch + 2 * padded};
#pragma omp for schedule(dynamic)
    for (index_t piece = 0; piece < pieces; piece++) {
      double *mean = partial + piece * 2 * channels, *square = mean + channels;
      for (index_t first = begin(piece); first < begin(piece + 1); first += kStatisticsRows) {
        const index_t size = smaller(kStatisticsRows, rows - first);
        along_channels<S, 4>(channels, [&]<int count>(index_t c, int n, Count<count>) RMPLOSS_INLINE_LAMBDA {
          block_sums<S, count>(y + first * channels, size, channels, c, n, sums);
        });
        add_block(sums, double(size), double(first - begin(piece)), channels, mean, square);
      }
    }
  }
  for (index_t c = 0; c < channels; c++) {
    double mean = 0, square = 0;
    for (index_t piece = 0; piece < pieces; piece++) {
      const double* p = partial + piece * 2 * channels + c;
      const double seen = double(begin(piece)), all = double(begin(piece + 1)), size = all - seen, delta = p[0] - mean;
      mean += delta * size / all;
      square += p[channels] + delta * delta * seen * size / all;
    }
    out[c] = mean;
    // NaN stays NaN; a sum that overflowed is no variance, and would make all gradients zero without a word.
    out[channels + c] = square < 0 ? 0 : std::isinf(square) ? double(NAN) : square / double(rows);
    out[2 * channels + c] = double(rows);
  }
}

// The coefficients [4, C] of the norm's gradient: gain g_x + shift + slope (y - mean); computed in double, rounded once.
template <class S>
void coefficients(const rmploss::Norm<S>& norm, index_t channels, S* out) {
  const double *mean = norm.statistics, *count = mean + 2 * channels;
  const double *s_1 = norm.sums, *s_2 = s_1 + channels;
  for (index_t c = 0; c < channels; c++) {
    const double inverse = inverse_deviation(mean, channels, norm.eps, c), gain = double(norm.weight[c]) * inverse;
    out[c] = S(gain);
    out[channels + c] = S(-gain * s_1[c] / count[c]);
    out[2 * channels + c] = S(-gain * inverse * s_2[c] / count[c]);
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
