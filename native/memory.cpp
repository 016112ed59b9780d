// See memory.h. Blocks are whole, never split: a kept block serves a request of at least sixteen seventeenths of its size. What is in
// use and what is kept together stay within the most that ever was in use at once: keeping does not add to the peak.
#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace rmploss {
namespace {

constexpr size_t kHuge = size_t(1) << 21;   // a huge page: one fault instead of 512
constexpr size_t kGrain = size_t(1) << 16;

std::mutex guard;
struct Kept {
  size_t bytes;
  void* block;
};
// Never destroyed: tensors may outlive this file's statics when the process ends.
std::vector<Kept>& kept = *new std::vector<Kept>;  // in the order in which they were given
std::unordered_map<void*, size_t>& in_use = *new std::unordered_map<void*, size_t>;  // large blocks only
Memory total{};
bool poisoned = false;

void* filled(void* block, size_t bytes) {
  if (poisoned) memset(block, 0xff, bytes);
  return block;
}

#if defined(__unix__) || defined(__APPLE__)
// A forked child (a loader process) must not inherit a lock that a thread of its parent holds.
const int kForkSafe = pthread_atfork([] { guard.lock(); }, [] { guard.unlock(); }, [] { guard.unlock(); });
#endif

void* from_system(size_t bytes) {
  const size_t alignment = bytes >= kHuge ? kHuge : 64;
  void* block = nullptr;
  if (posix_memalign(&block, alignment, bytes)) return nullptr;
#if defined(__linux__)
  if (bytes >= kHuge) madvise(block, bytes, MADV_HUGEPAGE);  // a wish; nothing is lost if it is refused
#endif
  return block;
}

// Hands back the blocks that were given longest ago, until no more than `budget` bytes are kept.
void keep_at_most(size_t budget) {
  size_t first = 0;
  while (total.kept > budget) {
    total.kept -= kept[first].bytes;
    free(kept[first].block);
    first++;
  }
  kept.erase(kept.begin(), kept.begin() + std::ptrdiff_t(first));
}

// The smallest kept block that serves a request, or the end.
std::vector<Kept>::iterator fitting(size_t bytes) {
  auto best = kept.end();
  for (auto it = kept.begin(); it != kept.end(); ++it)
    if (it->bytes >= bytes && it->bytes <= bytes + bytes / 16 && (best == kept.end() || it->bytes < best->bytes)) best = it;
  return best;
}

}  // namespace

void* take(size_t bytes) {
  if (bytes < kSmall) {
    void* block = nullptr;
    if (posix_memalign(&block, 64, bytes ? bytes : 64)) throw std::bad_alloc();
    return filled(block, bytes);
  }
  bytes = (bytes + kGrain - 1) / kGrain * kGrain;
  const std::lock_guard<std::mutex> locked(guard);
  void* block = nullptr;
  const auto fit = fitting(bytes);
  if (fit != kept.end()) {
    bytes = fit->bytes;
    block = fit->block;
    kept.erase(fit);
    total.kept -= bytes;
  } else {
    const size_t needed = total.in_use + bytes;
    const size_t most = total.peak - total.peak / 32;  // kept blocks fit requests only roughly
    keep_at_most(most > needed ? most - needed : 0);
    block = from_system(bytes);
    if (!block) {
      keep_at_most(0);
      block = from_system(bytes);
    }
    if (!block) throw std::bad_alloc();
  }
  in_use[block] = bytes;
  total.in_use += bytes;
  if (total.in_use > total.peak) total.peak = total.in_use;
  return filled(block, bytes);
}

void give(void* block) {
  const std::lock_guard<std::mutex> locked(guard);
  auto found = in_use.find(block);
  if (found == in_use.end()) {
    free(block);
    return;
  }
  kept.push_back({found->second, block});
  total.kept += found->second;
  total.in_use -= found->second;
  in_use.erase(found);
}

void poison(bool on) { poisoned = on; }

size_t release_kept() {
  const std::lock_guard<std::mutex> locked(guard);
  const size_t bytes = total.kept;
  keep_at_most(0);
  total.peak = total.in_use;
  return bytes;
}

Memory memory() {
  const std::lock_guard<std::mutex> locked(guard);
  return total;
}

}  // namespace rmploss
