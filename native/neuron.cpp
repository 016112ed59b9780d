// The neurons and the norm of one instruction set.
#include "lif.h"
#include "norm.h"

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
