// The kernels: what one instruction set offers. Every array is dense and channels-last, [rows, C] or [T, rows, C] with
// rows = B H W; pointers are never null unless said so. Work is cut into pieces that do not depend on the number of threads, so
// results do not either.
#pragma once
#include <cstdint>

namespace rmploss {

enum ResetKind : int { kHard, kSoft, kSoftByNumber };
enum SurrogateKind : int { kClippedTanh, kRectangle, kTriangle, kSigmoid, kArcTan };

// One layer of LIF neurons over time: x(t) = (y(t) - mean) gain + bias + residual(t), then Eqs. 1-3. With statistics the kernel
// sets the mean, and multiplies the gain by inverse = 1 / sqrt(var + eps).
template <class S> struct Neurons {
  int64_t steps, rows, channels;
  bool is_static;       // y is [1, rows, C] and the same at all steps
  const S* y;           // [steps or 1, rows, C]
  const double* statistics;  // [3, C]: mean, biased variance, number of values; or null
  double eps;
  const S* mean;        // [C] or null: 0
  const S* gain;        // [C] or null: 1
  const S* bias;        // [C] or null: 0
  const S* residual;    // [steps, rows, C] or null
  const uint64_t* residual_bits;  // [steps, rows, words] or null: the residual as spikes
  const S* start;       // [rows, C] membrane before the first step, or null: at rest
  const S* decay;       // [C]
  const S* threshold;   // [C]
  S reset_to;           // the potential after a hard reset, or what a soft one by a number subtracts
  int reset;            // ResetKind
  bool detach_reset;
  int surrogate;        // SurrogateKind
  S slope, damping;
  bool moments, of_input, detach_target;
  S p;
  int threads;
};

template <class S> struct Forward {
  S* spikes;       // [steps, rows, C] or null: only the bits are wanted
  uint64_t* bits;  // the same spikes, [steps rows, words], or null
  int64_t* count;  // how many spikes there are; with the bits
  S* moments;      // [4, C] or null
  S* last;         // [rows, C] or null
};

template <class S> struct Backward {
  const S* spikes;       // gradient of the spikes [steps, rows, C] or null: 0
  const S* moments;      // of the moments [4, C] or null
  const S* last;         // of the last membrane [rows, C] or null
  S* current;            // out: of x [steps or 1 (summed), rows, C]
  S* start;              // out: of the first membrane [rows, C] or null
  S* sums;               // out: [4, C]: gradients of bias, gain, decay, threshold; sum g_x, sum g_x (y - mean) inverse, ...
  bool constants;        // whether the last two are needed; 0 otherwise
};

// What the gradient of tdBN needs beside g_x and y.
template <class S> struct Norm {
  const double* statistics;  // [3, C]: mean, biased variance, number of values n
  const S* weight;           // [C]
  const double* sums;        // [2, C]: S_1 = sum g_x, S_2 = sum g_x z over all n values, z = (y - mean) inverse
  double eps;
};

struct Convolution {
  int64_t images, height, width, channels;     // of the input
  int64_t out_height, out_width, out_channels;
  int64_t kernel_height, kernel_width, stride, padding;
  int threads;
};

struct Kernels {
  const char* name;
  void (*lif_forward_f)(const Neurons<float>&, const Forward<float>&);
  void (*lif_forward_d)(const Neurons<double>&, const Forward<double>&);
  void (*lif_backward_f)(const Neurons<float>&, const Backward<float>&);
  void (*lif_backward_d)(const Neurons<double>&, const Backward<double>&);
  // Mean, biased variance and number of values per channel of y [rows, C]; double results [3, C].
  void (*statistics_f)(const float* y, int64_t rows, int64_t channels, double* out, int threads);
  void (*statistics_d)(const double* y, int64_t rows, int64_t channels, double* out, int threads);
  // g_y = weight inverse (g_x - S_1 / n - z S_2 / n), inverse = 1 / sqrt(var + eps): backward of Eqs. 6-7;
  // g_x [rows, C], which may be g_y.
  void (*norm_gradient_f)(const Norm<float>&, const float* g_x, const float* y, int64_t rows, int64_t channels, float* g_y,
                          int threads);
  void (*norm_gradient_d)(const Norm<double>&, const double* g_x, const double* y, int64_t rows, int64_t channels, double* g_y,
                          int threads);
  // Rows of 0/1 floats as bits [rows, ceil(C / 64)]; returns the number of spikes, or -1 if a value is neither.
  int64_t (*pack)(const float* x, int64_t rows, int64_t channels, uint64_t* bits, int threads);
  // Means over 2x2 squares of maps; width: of the means.
  void (*pool)(const uint64_t* bits, int64_t rows, int64_t width, int64_t channels, float* means, int threads);
  void (*unpack)(const uint64_t* bits, int64_t rows, int64_t channels, float* x, int threads);
  // Event-driven convolution of spikes; weight [C', C, K, K] contiguous, y [N, H', W', C'].
  void (*event_forward)(const Convolution&, const uint64_t* bits, const float* weight, const float* bias, float* y);
  void (*event_weight_gradient)(const Convolution&, const uint64_t* bits, const float* g_y, float* g_weight);
  // The same convolution and the neurons behind it, of all steps, for inference: images = steps B, rows = B H' W', y of the neurons
  // is null, moments and start, too. blocks: the weights as make_blocks writes them, blocks_size floats.
  int64_t (*blocks_size)(const Convolution&);
  void (*make_blocks)(const Convolution&, const float* weight, float* blocks);
  void (*event_lif)(const Convolution&, const Neurons<float>&, const uint64_t* bits, const float* blocks, const float* bias,
                    const Forward<float>&);
  // Another number for other values of x [n], all but surely: whether what was made of them still holds.
  uint64_t (*fingerprint)(const float* x, int64_t n, int threads);
  // Dense 3x3 convolution, stride 1, padding 1 (Winograd, tiles of 2x2 or 4x4). transposed: the gradient of the input.
  void (*winograd)(const Convolution&, const float* x, const float* weight, const float* bias, bool transposed, int tile,
                   float* y);
};

// Three per instruction set that was compiled.
void fill_neuron_avx512(Kernels&);
void fill_convolution_avx512(Kernels&);
void fill_inference_avx512(Kernels&);
void fill_neuron_avx2(Kernels&);
void fill_convolution_avx2(Kernels&);
void fill_inference_avx2(Kernels&);
void fill_neuron_portable(Kernels&);
void fill_convolution_portable(Kernels&);
void fill_inference_portable(Kernels&);

}  // namespace rmploss
