// The convolutions of one instruction set: event-driven for spikes, Winograd for what is dense.
#include "event.h"
#include "winograd.h"

#define RMPLOSS_JOIN2(a, b) a##b
#define RMPLOSS_JOIN(a, b) RMPLOSS_JOIN2(a, b)

namespace rmploss {
void RMPLOSS_JOIN(fill_convolution_, RMPLOSS_ISA)(Kernels& k) {
  k.pack = pack;
  k.unpack = unpack;
  k.pool = pool;
  k.event_forward = event_forward;
  k.event_weight_gradient = event_weight_gradient;
  k.winograd = winograd;
}
}  // namespace rmploss
