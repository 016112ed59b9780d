// Dense 3x3 convolution, stride 1, padding 1, by Winograd's F(m x m, 3 x 3): 2.25 (m = 2) or 4 (m = 4) times fewer
// multiplications than taps. It computes the input gradient, which is dense, as the convolution with the turned kernel (m = 4),
// and forward where the input is no spikes (m = 2, which rounds less).
//     y = A^T [ (G w G^T) * (B^T d B) ] A      for each tile d of (m + 2)^2 inputs
// A block of tiles is transformed, multiplied and transformed back while it lies in the cache.
#pragma once
#include "event.h"

namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 6, kColumns = 4;  // accumulators of the product: 24 of 32 registers
#else
constexpr int kRows = 6, kColumns = 2;  // 12 of 16
#endif
constexpr index_t kPanel = kColumns * kWidth;
constexpr index_t kBlockTiles = 30;  // tiles that are transformed, multiplied and transformed back together
constexpr index_t kLine = 64 / sizeof(float);
constexpr index_t kGroup = 128;  // output channels at a time: what bounds the memory of the transformed weights

template <int m> struct Winograd;
template <> struct Winograd<2> {
  template <class V> static inline void input(const V* d, index_t s, V* out) {
    out[0] = d[0] - d[2 * s];
    out[1] = d[s] + d[2 * s];
    out[2] = d[2 * s] - d[s];
    out[3] = d[s] - d[3 * s];
  }
  template <class V> static inline void output(const V* d, index_t s, V* out) {
    out[0] = d[0] + d[s] + d[2 * s];
    out[1] = d[s] - d[2 * s] - d[3 * s];
  }
  template <class V> static inline void kernel(V a, V b, V c, V* out) {
    out[0] = a;
    out[1] = 0.5f * (a + b + c);
    out[2] = 0.5f * (a - b + c);
    out[3] = c;
  }
};
template <> struct Winograd<4> {
  template <class V> static inline void input(const V* d, index_t s, V* out) {
    const V d0 = d[0], d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s], d5 = d[5 * s];
    const V p = d4 - 4 * d2, q = d3 - 4 * d1, r = d4 - d2, t = 2 * (d3 - d1);
    out[0] = 4 * d0 - 5 * d2 + d4;
    out[1] = p + q;
    out[2] = p - q;
    out[3] = r + t;
    out[4] = r - t;
    out[5] = 4 * d1 - 5 * d3 + d5;
  }
  template <class V> static inline void output(const V* d, index_t s, V* out) {
    const V d1 = d[s], d2 = d[2 * s], d3 = d[3 * s], d4 = d[4 * s];
    const V a = d1 + d2, b = d1 - d2, e = d3 + d4, f = d3 - d4;
    out[0] = d[0] + a + e;
    out[1] = b + 2 * f;
    out[2] = a + 4 * e;
    out[3] = b + 8 * f + d[5 * s];
  }
  template <class V> static inline void kernel(V a, V b, V c, V* out) {
    const V s = (a + c) * (-1.0f / 6), t = b * (1.0f / 6), e = a * (1.0f / 24) + c * (1.0f / 6), o = b * (1.0f / 12);
    out[0] = a * 0.25f;
    out[1] = s - t;
    out[2] = s + t;
    out[3] = e + o;
    out[4] = e - o;
    out[5] = c;
  }
};

// Output channels [begin, begin + count) of M; K are the channels that are summed over.
struct Group {
  index_t K, M, begin, count;
  index_t panels() const { return (count + kPanel - 1) / kPanel; }
};

// U [points][panel][K][kPanel] of the weights [C', C, 3, 3] of a group.
template <int m> void winograd_weights(const Convolution& c, const float* weight, bool transposed, const Group& g, float* U) {
  constexpr int n = m + 2;
  const index_t K = g.K, panels = g.panels();
#pragma omp parallel for collapse(2) schedule(static) num_threads(c.threads)
  for (index_t panel = 0; panel < panels; panel++)
    for (index_t k = 0; k < K; k++) {
      float taps[9][kPanel] = {};
      const index_t first = g.begin + panel * kPanel, wide = smaller(kPanel, g.count - panel * kPanel);
      const index_t step = transposed ? 9 : K * 9;
      const float* w = weight + (transposed ? k * g.M + first : first * K + k) * 9;
      for (index_t i = 0; i < wide; i++)
        for (int tap = 0; tap < 9; tap++) taps[tap][i] = w[i * step + (transposed ? 8 - tap : tap)];
      for (index_t i = 0; i < kPanel; i += kWidth) {
        vfloat half[n][3], line[n];
        for (int x = 0; x < 3; x++) {
          Winograd<m>::kernel(load(taps[x] + i), load(taps[3 + x] + i), load(taps[6 + x] + i), line);
          for (int y = 0; y < n; y++) half[y][x] = line[y];
        }
        for (int y = 0; y < n; y++) {
          Winograd<m>::kernel(half[y][0], half[y][1], half[y][2], line);
          for (int x = 0; x < n; x++) store(U + (((y * n + x) * panels + panel) * K + k) * kPanel + i, line[x]);
        }
      }
    }
}

// C [rows, ldc] = A [rows, K] B [K, kPanel], at most kRows rows.
template <int R> inline void multiply(const float* A, index_t K, const float* B, float* C, index_t ldc) {
  vfloat acc[R][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; v++) acc[r][v] = vfloat{};
  for (index_t k = 0; k < K; k++) {
    vfloat b[kColumns];
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; v++) b[v] = load(B + k * kPanel + v * kWidth);
#pragma GCC unroll 8
    for (int r = 0; r < R; r++) {
      const float a = A[r * K + k];
#pragma GCC unroll 4
      for (int v = 0; v < kColumns; v++) acc[r][v] += a * b[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; r++)
#pragma GCC unroll 4
    for (int v = 0; v < kColumns; v++) store(C + r * ldc + v * kWidth, acc[r][v]);
}

template <int R> inline void multiply_rest(int rows, const float* A, index_t K, const float* B, float* C, index_t ldc) {
  if (rows == R) return multiply<R>(A, K, B, C, ldc);
  if constexpr (R > 1) multiply_rest<R - 1>(rows, A, K, B, C, ldc);
}

// One register of channels of a tile of inputs, to the n * n points of V: B^T d B. at: where each input begins.
template <int m>
RMPLOSS_INLINE void transform_input(const float* const* at, index_t k, int lanes, float* V, index_t point) {
  constexpr int n = m + 2;
  vfloat half[n * n], column[n], line[n];
  for (int h = 0; h < n; h++) {
    for (int v = 0; v < n; v++) column[v] = load(at[v * n + h] + k, lanes);
    Winograd<m>::input(column, 1, line);
    for (int v = 0; v < n; v++) half[v * n + h] = line[v];
  }
  for (int v = 0; v < n; v++) {
    Winograd<m>::input(half + v * n, 1, line);
    for (int h = 0; h < n; h++) store(V + (v * n + h) * point + k, line[h], lanes);
  }
}

// One register of channels of a tile of outputs, from the n * n points of Z: A^T z A + add. to: where the tile begins.
template <int m>
RMPLOSS_INLINE void transform_output(const float* Z, index_t point, vfloat add, int rows, int columns, int lanes, float* to,
                                     index_t row, index_t column) {
  constexpr int n = m + 2;
  vfloat half[m * n], line[m], d[n];
  for (int h = 0; h < n; h++) {
    for (int v = 0; v < n; v++) d[v] = load(Z + (v * n + h) * point);
    Winograd<m>::output(d, 1, line);
    for (int v = 0; v < m; v++) half[v * n + h] = line[v];
  }
  for (int v = 0; v < m; v++) {
    if (v == rows) break;
    Winograd<m>::output(half + v * n, 1, line);
    for (int h = 0; h < m; h++)
      if (h < columns) store(to + v * row + h * column, line[h] + add, lanes);
  }
}

template <int m>
void winograd_tiles(const Convolution& c, const float* x, const float* U, const float* bias, const Group& g, float* y) {
  constexpr int n = m + 2;
  const index_t K = g.K, M = g.M;
  const index_t H = c.height, W = c.width, down = (H + m - 1) / m, across = (W + m - 1) / m;
  const index_t tiles = c.images * down * across, panels = g.panels(), wide = panels * kPanel;
  const index_t block = kBlockTiles, pieces = (tiles + block - 1) / block;
  const index_t padded = (K + kWidth - 1) / kWidth * kWidth;
  // The points begin a cache line further apart than a power of two: else they share one set of the first-level cache, and
  // every store of a transform pushes out the line of another.
  const index_t v_point = block * padded + kLine, z_point = block * wide + kLine;
  const Scratch<float> transformed(size_t(n * n * v_point), c.threads);
  const Scratch<float> products(size_t(n * n * z_point), c.threads);
  const Scratch<float> outside(static_cast<size_t>(padded));
  memset(outside.data(), 0, size_t(padded) * sizeof(float));
#pragma omp parallel num_threads(c.threads)
  {
    float* V = transformed.of(thread_number());
    float* Z = products.of(thread_number());
#pragma omp for schedule(dynamic)
    for (index_t piece = 0; piece < pieces; piece++) {
      const index_t first = piece * block, count = smaller(block, tiles - first);
      for (index_t i = 0; i < count; i++) {
        const index_t tile = first + i, image = tile / (down * across);
        const index_t y0 = tile / across % down * m - 1, x0 = tile % across * m - 1;
        const float* at[n * n];
        for (int v = 0; v < n; v++)
          for (int h = 0; h < n; h++) {
            const index_t yy = y0 + v, xx = x0 + h;
            const bool inside = yy >= 0 && yy < H && xx >= 0 && xx < W;
            at[v * n + h] = inside ? x + ((image * H + yy) * W + xx) * K : outside.data();
          }
        index_t k = 0;
        for (; k + kWidth <= K; k += kWidth) transform_input<m>(at, k, kWidth, V + i * K, v_point);
        if (k < K) transform_input<m>(at, k, int(K - k), V + i * K, v_point);
      }
      for (int point = 0; point < n * n; point++)
        for (index_t panel = 0; panel < panels; panel++) {
          const float* B = U + (point * panels + panel) * K * kPanel;
          for (index_t i = 0; i < count; i += kRows)
            multiply_rest<kRows>(int(smaller(kRows, count - i)), V + point * v_point + i * K, K, B,
                                 Z + point * z_point + i * wide + panel * kPanel, wide);
        }
      for (index_t i = 0; i < count; i++) {
        const index_t tile = first + i, image = tile / (down * across);
        const index_t y0 = tile / across % down * m, x0 = tile % across * m;
        const int rows = int(smaller(m, H - y0)), columns = int(smaller(m, W - x0));
        float* to = y + ((image * H + y0) * W + x0) * M + g.begin;
        for (index_t k = 0; k < g.count; k += kWidth) {
          const int lanes = int(smaller(kWidth, g.count - k));
          const vfloat add = bias ? load(bias + g.begin + k, lanes) : vfloat{};
          const float* z = Z + i * wide + k;
          if (rows == m && columns == m && lanes == kWidth)
            transform_output<m>(z, z_point, add, m, m, kWidth, to + k, W * M, M);
          else
            transform_output<m>(z, z_point, add, rows, columns, lanes, to + k, W * M, M);
        }
      }
    }
  }
}

template <int m>
void winograd_with(const Convolution& c, const float* x, const float* weight, const float* bias, bool transposed, float* y) {
  const index_t K = transposed ? c.out_channels : c.channels, M = transposed ? c.channels : c.out_channels;
  for (index_t begin = 0; begin < M; begin += kGroup) {
    const Group group{K, M, begin, smaller(kGroup, M - begin)};
    const Scratch<float> U(size_t((m + 2) * (m + 2) * group.panels() * K * kPanel));
    winograd_weights<m>(c, weight, transposed, group, U.data());
    winograd_tiles<m>(c, x, U.data(), bias, group, y);
  }
}

// tile: 2 or 4.
void winograd(const Convolution& c, const float* x, const float* weight, const float* bias, bool transposed, int tile,
              float* y) {
  if (tile == 4) winograd_with<4>(c, x, weight, bias, transposed, y);
  else winograd_with<2>(c, x, weight, bias, transposed, y);
}

}  // namespace
