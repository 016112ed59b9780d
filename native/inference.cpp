// The layers for inference of one instruction set.
#include "event_lif.h"

#define RMPLOSS_JOIN2(a, b) a##b
#define RMPLOSS_JOIN(a, b) RMPLOSS_JOIN2(a, b)

namespace rmploss {
void RMPLOSS_JOIN(fill_inference_, RMPLOSS_ISA)(Kernels& k) {
  k.blocks_size = blocks_size;
  k.make_blocks = make_blocks;
  k.event_lif = event_lif;
  k.fingerprint = fingerprint;
}
}  // namespace rmploss
