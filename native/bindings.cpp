// The Python module rmploss.ops._native: the kernels of the widest instruction set that this machine runs.
// Arrays arrive as addresses; src/rmploss/ops/cpu.py is the only caller and answers for shapes, types and lifetimes.
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
    all.push_back(k);
  }
  if (avx2) {
    Kernels k{};
    k.name = "avx2";
    fill_neuron_avx2(k);
    fill_convolution_avx2(k);
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

// The neurons that forward and backward share, in the order of `cpu._arguments`.
template <class S> Neurons<S> neurons(const nb::tuple& given) {
  int next = 0;
  const auto place = [&] { return nb::cast<address>(given[next++]); };
  const auto whole = [&] { return nb::cast<int64_t>(given[next++]); };
  const auto number = [&] { return nb::cast<double>(given[next++]); };
  const auto flag = [&] { return nb::cast<bool>(given[next++]); };
  Neurons<S> a{};
  a.steps = whole();
  a.rows = whole();
  a.channels = whole();
  a.is_static = flag();
  a.y = at<S>(place());
  a.statistics = at<double>(place());
  a.eps = number();
  a.gain = at<S>(place());
  a.bias = at<S>(place());
  a.residual = at<S>(place());
  a.residual_bits = at<uint64_t>(place());
  a.start = at<S>(place());
  a.decay = at<S>(place());
  a.threshold = at<S>(place());
  a.reset_to = S(number());
  a.reset = int(whole());
  a.detach_reset = flag();
  a.surrogate = int(whole());
  a.slope = S(number());
  a.damping = S(number());
  a.moments = flag();
  a.of_input = flag();
  a.detach_target = flag();
  a.p = S(number());
  a.threads = int(whole());
  return a;
}

void lif_forward(bool is_double, const nb::tuple& given, address spikes, address sums, address last) {
  auto run = [&]<class S>(S, auto kernel) {
    const Neurons<S> a = neurons<S>(given);
    const Forward<S> f{at<S>(spikes), at<S>(sums), at<S>(last)};
    nb::gil_scoped_release unlocked;
    kernel(a, f);
  };
  is_double ? run(double(), kernels->lif_forward_d) : run(float(), kernels->lif_forward_f);
}

void lif_backward(bool is_double, const nb::tuple& given, address g_spikes, address g_moments, address g_last,
                  address g_current, address g_start, address sums, bool constants) {
  auto run = [&]<class S>(S, auto kernel) {
    const Neurons<S> a = neurons<S>(given);
    const Backward<S> b{at<S>(g_spikes), at<S>(g_moments), at<S>(g_last), at<S>(g_current),
                        at<S>(g_start), at<S>(sums), constants};
    nb::gil_scoped_release unlocked;
    kernel(a, b);
  };
  is_double ? run(double(), kernels->lif_backward_d) : run(float(), kernels->lif_backward_f);
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

Convolution convolution(const nb::tuple& shape, int threads) {
  int64_t n[11];
  for (int i = 0; i < 11; i++) n[i] = nb::cast<int64_t>(shape[i]);
  return Convolution{n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8], n[9], n[10], threads};
}

void event_forward(const nb::tuple& shape, int threads, address bits, address weight, address bias, address y) {
  const Convolution c = convolution(shape, threads);
  nb::gil_scoped_release unlocked;
  kernels->event_forward(c, at<uint64_t>(bits), at<float>(weight), at<float>(bias), at<float>(y));
}

void event_weight_gradient(const nb::tuple& shape, int threads, address bits, address g_y, address g_weight) {
  const Convolution c = convolution(shape, threads);
  nb::gil_scoped_release unlocked;
  kernels->event_weight_gradient(c, at<uint64_t>(bits), at<float>(g_y), at<float>(g_weight));
}

void winograd(const nb::tuple& shape, int threads, address x, address weight, address bias, bool transposed, int tile,
              address y) {
  const Convolution c = convolution(shape, threads);
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
  m.doc() = "The native kernels of the `cpu` provider; called by rmploss.ops.cpu only.";
  m.def("surrogates", &surrogates, "The number of every surrogate, by the name of its class.");
  m.def("resets", &resets, "The number of every reset, by its name in rule.py.");
  m.def("instruction_sets", &names, "Those that this machine runs, the widest first.");
  m.def("instruction_set", [] { return kernels->name; }, "The one in use.");
  m.def("choose", &choose, "Use another one: for tests.");
  m.def("empty", &empty, "A dense tensor of a shape and strides, without values, over memory that is kept.");
  m.attr("INTERFACE") = 3;  // counted up with every change of an argument, here and in ops/cpu.py
  m.attr("SMALL") = kSmall;
  m.def("poison", &poison, "Fill memory with NaN when it is taken: for tests.");
  m.def("release_kept", &release_kept, "Hand kept memory back to the system; how many bytes.");
  m.def("memory", [] {
    const Memory now = memory();
    return nb::make_tuple(now.in_use, now.kept, now.peak);
  }, "Bytes in use, kept, and the most ever in use.");
  m.def("lif_forward", &lif_forward);
  m.def("lif_backward", &lif_backward);
  m.def("statistics", &statistics);
  m.def("norm_gradient", &norm_gradient);
  m.def("pack", &pack);
  m.def("unpack", &unpack);
  m.def("event_forward", &event_forward);
  m.def("event_weight_gradient", &event_weight_gradient);
  m.def("winograd", &winograd);
}
