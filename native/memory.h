// Memory that is kept: large blocks that were freed serve the next array of about their size.
//
// The system's allocator gives every large block back to the kernel at once and asks for it again; each page of it then costs a
// page fault, several times what a kernel takes to write it (33 MB: 10 ms to fault in, 1 ms to write). A training step
// asks for the same sizes over and over.
#pragma once
#include <cstddef>

namespace rmploss {

void* take(size_t bytes);   // aligned to 64 bytes; throws std::bad_alloc
void give(void* block);     // null is fine
void poison(bool on);       // fill every block with NaN when it is taken: for tests
size_t release_kept();      // hands all kept blocks back to the system; returns their bytes

struct Memory {
  size_t in_use, kept, peak;  // bytes
};
Memory memory();

}  // namespace rmploss
