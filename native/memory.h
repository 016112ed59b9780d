// Memory that is kept: large blocks that were freed serve the next array of about their size.
//
// The system's allocator gives every large block back to the kernel at once and asks for it again; each page of it then costs a
// page fault, several times what a kernel takes to write it (33 MB: 10 ms to fault in, 1 ms to write). A training step
// asks for the same sizes over and over.
#pragma once
#include <cstddef>

namespace rmploss {

constexpr size_t kSmall = size_t(1) << 18;  // bytes; below it the system's allocator reuses memory itself

void* take(size_t bytes);   // aligned to 64 bytes; throws std::bad_alloc
void give(void* block);     // null is fine
void poison(bool on);       // fill every block with NaN when it is taken: for tests
size_t release_kept();      // hands all kept blocks back, forgets the peak; returns their bytes

struct Memory {
  size_t in_use, kept, peak;  // bytes
};
Memory memory();

// Scratch memory of a kernel, one part per thread, taken before the threads start: an exception must not leave a
// parallel region.
template <class T> class Scratch {
 public:
  Scratch(size_t each, int threads = 1)
      : each_((each + 15) / 16 * 16), data_(static_cast<T*>(take(each_ * size_t(threads) * sizeof(T)))) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { give(data_); }
  T* of(int thread) const { return data_ + size_t(thread) * each_; }
  T* data() const { return data_; }

 private:
  size_t each_;
  T* data_;
};

}  // namespace rmploss
