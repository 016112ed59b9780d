// The Python module rmploss.ops._native: the kernels of the widest instruction set that this machine runs.
// Arrays arrive as addresses; src/rmploss/ops (native.py, lif/native.py, spike_conv2d/native.py) is the only caller and answers for shapes, types and lifetimes.
// Every kernel runs without the interpreter's lock.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace nb = nanobind;
using namespace rmploss;
using namespace nb::literals;

namespace {

typedef uintptr_t address;
template <class T> T* at(address a) { return reinterpret_cast<T*>(a); }

std::vector<Kernels> found() {
  std::vector<Kernels> all;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // Exactly the flags of CMakeLists.txt: the compiler may use no instruction that is not tested here.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    Kernels k{};
    k.name = "avx512";
    fill_neuron_avx512(k);
    fill_convolution_avx512(k);
    fill_inference_avx512(k);
    all.push_back(k);
  }
  if (avx2) {
    Kernels k{};
    k.name = "avx2";
    fill_neuron_avx2(k);
    fill_convolution_avx2(k);
    fill_inference_avx2(k);
    all.push_back(k);
  }
#endif
  Kernels k{};
#if defined(__aarch64__)
  k.name = "neon";
#else
  k.name = "portable";
#endif
  fill_neuron_portable(k);
  fill_convolution_portable(k);
  fill_inference_portable(k);
  all.push_back(k);
  return all;
}

const std::vector<Kernels> kFound = found();
const Kernels* kernels = &kFound.front();

void choose(const std::string& name) {
  for (const Kernels& k : kFound)
    if (k.name == name) {
      kernels = &k;
      return;
    }
  throw std::invalid_argument("this machine does not run " + name);
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const Kernels& k : kFound) all.push_back(k.name);
  return all;
}

nb::dict surrogates() {
  nb::dict found;
  found["ClippedTanh"] = int(kClippedTanh);
  found["Rectangle"] = int(kRectangle);
  found["Triangle"] = int(kTriangle);
  found["Sigmoid"] = int(kSigmoid);
  found["ArcTan"] = int(kArcTan);
  return found;
}

nb::dict resets() {
  nb::dict found;
  found["HARD"] = int(kHard);
  found["SOFT"] = int(kSoft);
  found["SOFT_BY_NUMBER"] = int(kSoftByNumber);
  return found;
}

// Records that Python fills in by name: numbers, and the addresses of arrays (0: none). Each list makes the struct and what Python
// sees of it; the Python side compares its own names with these when it is imported (src/rmploss/ops/native.py).
#define RMPLOSS_LAYER(field)                                                                                          \
  field(bool, is_double) field(int64_t, steps) field(int64_t, rows) field(int64_t, channels) field(bool, is_static)   \
  field(address, y) field(address, statistics) field(double, eps) field(address, gain) field(address, bias)           \
  field(address, residual) field(address, residual_bits) field(address, start) field(address, decay)                  \
  field(address, threshold) field(double, reset_to) field(int, reset) field(bool, detach_reset) field(int, surrogate) \
  field(double, slope) field(double, damping) field(bool, moments) field(bool, of_input) field(bool, detach_target)   \
  field(double, p) field(int, threads)
#define RMPLOSS_FORWARD(field) \
  field(address, spikes) field(address, bits) field(address, count) field(address, moments) field(address, last)
#define RMPLOSS_BACKWARD(field)                                                                           \
  field(address, g_spikes) field(address, g_moments) field(address, g_last) field(address, g_current)     \
  field(address, g_start) field(address, sums) field(bool, constants)
#define RMPLOSS_CONVOLUTION(field)                                                                                   \
  field(int64_t, images) field(int64_t, height) field(int64_t, width) field(int64_t, channels)                       \
  field(int64_t, out_height) field(int64_t, out_width) field(int64_t, out_channels) field(int64_t, kernel_height)    \
  field(int64_t, kernel_width) field(int64_t, stride) field(int64_t, padding) field(int, threads)

#define RMPLOSS_TAKE(type, name) \
  if (given.contains(#name)) made.name = nb::cast<type>(given[#name]), taken++;
#define RMPLOSS_MEMBER(type, name) type name{};
#define RMPLOSS_EXPOSE(type, name) .def_ro(#name, &Record::name)
struct LayerRecord { RMPLOSS_LAYER(RMPLOSS_MEMBER) };
struct ForwardRecord { RMPLOSS_FORWARD(RMPLOSS_MEMBER) };
struct BackwardRecord { RMPLOSS_BACKWARD(RMPLOSS_MEMBER) };
struct ConvolutionRecord { RMPLOSS_CONVOLUTION(RMPLOSS_MEMBER) };

// A record of the fields that are given by name; a name that it has not is a TypeError.
#define RMPLOSS_MAKER(maker, Record, FIELDS)                                  \
  Record maker(const nb::kwargs& given) {                                     \
    Record made;                                                              \
    size_t taken = 0;                                                         \
    FIELDS(RMPLOSS_TAKE)                                                      \
    if (taken != given.size()) throw nb::type_error(#Record ": unknown field"); \
    return made;                                                              \
  }
RMPLOSS_MAKER(make_layer, LayerRecord, RMPLOSS_LAYER)
RMPLOSS_MAKER(make_forward, ForwardRecord, RMPLOSS_FORWARD)
RMPLOSS_MAKER(make_backward, BackwardRecord, RMPLOSS_BACKWARD)
RMPLOSS_MAKER(make_convolution, ConvolutionRecord, RMPLOSS_CONVOLUTION)

template <class S> Neurons<S> neurons(const LayerRecord& r) {
  Neurons<S> a{};
  a.steps = r.steps;
  a.rows = r.rows;
  a.channels = r.channels;
  a.is_static = r.is_static;
  a.y = at<S>(r.y);
  a.statistics = at<double>(r.statistics);
  a.eps = r.eps;
  a.gain = at<S>(r.gain);
  a.bias = at<S>(r.bias);
  a.residual = at<S>(r.residual);
  a.residual_bits = at<uint64_t>(r.residual_bits);
  a.start = at<S>(r.start);
  a.decay = at<S>(r.decay);
  a.threshold = at<S>(r.threshold);
  a.reset_to = S(r.reset_to);
  a.reset = r.reset;
  a.detach_reset = r.detach_reset;
  a.surrogate = r.surrogate;
  a.slope = S(r.slope);
  a.damping = S(r.damping);
  a.moments = r.moments;
  a.of_input = r.of_input;
  a.detach_target = r.detach_target;
  a.p = S(r.p);
  a.threads = r.threads;
  return a;
}

void lif_forward(const LayerRecord& layer, const ForwardRecord& out) {
  auto run = [&]<class S>(S, auto kernel) {
    const Neurons<S> a = neurons<S>(layer);
    const Forward<S> f{at<S>(out.spikes), at<uint64_t>(out.bits), at<int64_t>(out.count), at<S>(out.moments),
                       at<S>(out.last)};
    nb::gil_scoped_release unlocked;
    kernel(a, f);
  };
  layer.is_double ? run(double(), kernels->lif_forward_d) : run(float(), kernels->lif_forward_f);
}

void lif_backward(const LayerRecord& layer, const BackwardRecord& g) {
  auto run = [&]<class S>(S, auto kernel) {
    const Neurons<S> a = neurons<S>(layer);
    const Backward<S> b{at<S>(g.g_spikes), at<S>(g.g_moments), at<S>(g.g_last), at<S>(g.g_current),
                        at<S>(g.g_start), at<S>(g.sums), g.constants};
    nb::gil_scoped_release unlocked;
    kernel(a, b);
  };
  layer.is_double ? run(double(), kernels->lif_backward_d) : run(float(), kernels->lif_backward_f);
}

void statistics(bool is_double, address y, int64_t rows, int64_t channels, address out, int threads) {
  nb::gil_scoped_release unlocked;
  if (is_double) kernels->statistics_d(at<double>(y), rows, channels, at<double>(out), threads);
  else kernels->statistics_f(at<float>(y), rows, channels, at<double>(out), threads);
}

void norm_gradient(bool is_double, address statistics, address weight, address sums, double eps, address g_x, address y,
                   int64_t rows, int64_t channels, address g_y, int threads) {
  auto run = [&]<class S>(S, auto kernel) {
    const Norm<S> norm{at<double>(statistics), at<S>(weight), at<double>(sums), eps};
    nb::gil_scoped_release unlocked;
    kernel(norm, at<S>(g_x), at<S>(y), rows, channels, at<S>(g_y), threads);
  };
  is_double ? run(double(), kernels->norm_gradient_d) : run(float(), kernels->norm_gradient_f);
}

int64_t pack(address x, int64_t rows, int64_t channels, address bits, int threads) {
  nb::gil_scoped_release unlocked;
  return kernels->pack(at<float>(x), rows, channels, at<uint64_t>(bits), threads);
}

void unpack(address bits, int64_t rows, int64_t channels, address x, int threads) {
  nb::gil_scoped_release unlocked;
  kernels->unpack(at<uint64_t>(bits), rows, channels, at<float>(x), threads);
}

void pool(address bits, int64_t rows, int64_t width, int64_t channels, address means, int threads) {
  nb::gil_scoped_release unlocked;
  kernels->pool(at<uint64_t>(bits), rows, width, channels, at<float>(means), threads);
}

Convolution convolution(const ConvolutionRecord& r) {
  return Convolution{r.images, r.height, r.width, r.channels, r.out_height, r.out_width, r.out_channels,
                     r.kernel_height, r.kernel_width, r.stride, r.padding, r.threads};
}

void event_forward(const ConvolutionRecord& shape, address bits, address weight, address bias, address y) {
  const Convolution c = convolution(shape);
  nb::gil_scoped_release unlocked;
  kernels->event_forward(c, at<uint64_t>(bits), at<float>(weight), at<float>(bias), at<float>(y));
}

void event_weight_gradient(const ConvolutionRecord& shape, address bits, address g_y, address g_weight) {
  const Convolution c = convolution(shape);
  nb::gil_scoped_release unlocked;
  kernels->event_weight_gradient(c, at<uint64_t>(bits), at<float>(g_y), at<float>(g_weight));
}

int64_t blocks_size(const ConvolutionRecord& shape) { return kernels->blocks_size(convolution(shape)); }

void make_blocks(const ConvolutionRecord& shape, address weight, address blocks) {
  const Convolution c = convolution(shape);
  nb::gil_scoped_release unlocked;
  kernels->make_blocks(c, at<float>(weight), at<float>(blocks));
}

void event_lif(const ConvolutionRecord& shape, const LayerRecord& layer, address bits, address blocks, address bias,
               const ForwardRecord& out) {
  const Convolution c = convolution(shape);
  const Neurons<float> a = neurons<float>(layer);
  if (a.steps < 1 || a.rows < 1) throw std::invalid_argument("a layer for inference needs a time step and a pixel");
  if (a.channels != c.out_channels || a.steps * a.rows != c.images * c.out_height * c.out_width)
    throw std::invalid_argument("the neurons are not those of the convolution's outputs");
  const Forward<float> f{nullptr, at<uint64_t>(out.bits), at<int64_t>(out.count), nullptr, nullptr};
  nb::gil_scoped_release unlocked;
  kernels->event_lif(c, a, at<uint64_t>(bits), at<float>(blocks), at<float>(bias), f);
}

uint64_t fingerprint(const std::vector<address>& arrays, const std::vector<int64_t>& sizes, int threads) {
  if (arrays.size() != sizes.size()) throw std::invalid_argument("every array needs a size");
  nb::gil_scoped_release unlocked;
  uint64_t found = 0;
  for (size_t i = 0; i < arrays.size(); i++)
    found = found * 0x9e3779b97f4a7c15ull + kernels->fingerprint(at<float>(arrays[i]), sizes[i], threads);
  return found;
}

void winograd(const ConvolutionRecord& shape, address x, address weight, address bias, bool transposed, int tile,
              address y) {
  const Convolution c = convolution(shape);
  nb::gil_scoped_release unlocked;
  kernels->winograd(c, at<float>(x), at<float>(weight), at<float>(bias), transposed, tile, at<float>(y));
}

// A tensor over kept memory, without its values; its memory is given back when the last tensor over it is gone.
template <class S>
nb::object tensor(const std::vector<size_t>& shape, const std::vector<int64_t>& strides) {
  size_t count = 1;
  for (size_t n : shape) count *= n;
  void* block = take(count * sizeof(S));
  const nb::capsule owner(block, [](void* p) noexcept { give(p); });
  return nb::cast(nb::ndarray<nb::pytorch, S>(block, shape.size(), shape.data(), owner, strides.data()));
}

nb::object empty(const std::vector<size_t>& shape, const std::vector<int64_t>& strides, bool is_double) {
  return is_double ? tensor<double>(shape, strides) : tensor<float>(shape, strides);
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The native kernels of the `cpu` backend; called by rmploss.ops only.";
  m.def("surrogates", &surrogates, "The number of every surrogate, by the name of its class.");
  m.def("resets", &resets, "The number of every reset, by its name in ops/lif/inputs.py.");
  m.def("instruction_sets", &names, "Those that this machine runs, the widest first.");
  m.def("instruction_set", [] { return kernels->name; }, "The one in use.");
  m.def("choose", &choose, "Use another one: for tests.");
  m.def("empty", &empty, "A dense tensor of a shape and strides, without values, over memory that is kept.");
  m.attr("SMALL") = kSmall;
  m.def("poison", &poison, "Fill memory with NaN when it is taken: for tests.");
  m.def("release_kept", &release_kept, "Hand kept memory back to the system; how many bytes.");
  m.def("memory", [] {
    const Memory now = memory();
    return nb::make_tuple(now.in_use, now.kept, now.peak);
  }, "Bytes in use, kept, and the most ever in use.");
  {
    typedef LayerRecord Record;
    nb::class_<Record>(m, "Layer") RMPLOSS_LAYER(RMPLOSS_EXPOSE);
  }
  {
    typedef ForwardRecord Record;
    nb::class_<Record>(m, "Forward") RMPLOSS_FORWARD(RMPLOSS_EXPOSE);
  }
  {
    typedef BackwardRecord Record;
    nb::class_<Record>(m, "Backward") RMPLOSS_BACKWARD(RMPLOSS_EXPOSE);
  }
  {
    typedef ConvolutionRecord Record;
    nb::class_<Record>(m, "Convolution") RMPLOSS_CONVOLUTION(RMPLOSS_EXPOSE);
  }
  m.def("layer", &make_layer, "A record `Layer` of the fields that are given.");
  m.def("forward", &make_forward, "A record `Forward` of the fields that are given.");
  m.def("backward", &make_backward, "A record `Backward` of the fields that are given.");
  m.def("convolution", &make_convolution, "A record `Convolution` of the fields that are given.");
  m.def("lif_forward", &lif_forward, "layer"_a, "out"_a);
  m.def("lif_backward", &lif_backward, "layer"_a, "gradients"_a);
  m.def("statistics", &statistics, "is_double"_a, "y"_a, "rows"_a, "channels"_a, "out"_a, "threads"_a);
  m.def("norm_gradient", &norm_gradient, "is_double"_a, "statistics"_a, "weight"_a, "sums"_a, "eps"_a, "g_x"_a, "y"_a,
        "rows"_a, "channels"_a, "g_y"_a, "threads"_a);
  m.def("pack", &pack, "x"_a, "rows"_a, "channels"_a, "bits"_a, "threads"_a);
  m.def("unpack", &unpack, "bits"_a, "rows"_a, "channels"_a, "x"_a, "threads"_a);
  m.def("pool", &pool, "bits"_a, "rows"_a, "width"_a, "channels"_a, "means"_a, "threads"_a);
  m.def("event_forward", &event_forward, "shape"_a, "bits"_a, "weight"_a, "bias"_a, "y"_a);
  m.def("event_weight_gradient", &event_weight_gradient, "shape"_a, "bits"_a, "g_y"_a, "g_weight"_a);
  m.def("blocks_size", &blocks_size, "shape"_a, "How many floats `make_blocks` writes.");
  m.def("make_blocks", &make_blocks, "shape"_a, "weight"_a, "blocks"_a);
  m.def("event_lif", &event_lif, "shape"_a, "layer"_a, "bits"_a, "blocks"_a, "bias"_a, "out"_a);
  m.def("fingerprint", &fingerprint, "arrays"_a, "sizes"_a, "threads"_a, "A number that changes with the values of arrays.");
  m.def("winograd", &winograd, "shape"_a, "x"_a, "weight"_a, "bias"_a, "transposed"_a, "tile"_a, "y"_a);
}
