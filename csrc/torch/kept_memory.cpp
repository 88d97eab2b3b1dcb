// Keeping freed CPU memory in the process. glibc hands every large buffer back to the kernel when it is freed, and the
// next training step pays for the same buffers again, a page fault per 4 KiB: on graphs of a million edges that is more
// than half of a PyG step. Two settings change it, and both can be undone:
//  - mallopt: buffers come from the heap, whose top is not returned;
//  - an allocator for torch that asks malloc for a little more and aligns by itself. torch's own calls posix_memalign,
//    which cannot reuse a freed block of the very size it asks for (it searches for size + alignment), so that kept
//    memory would grow to twice the need. Buffers of some megabytes are also offered to transparent huge pages.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include <atomic>
#include <cstdlib>

#if defined(__GLIBC__)
#include <malloc.h>
#include <sys/mman.h>
#endif

namespace gnna {
namespace {

#if defined(__GLIBC__)

constexpr size_t kAlignment = 64;  // what torch's own allocator promises
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kHugeFrom = 2 * kHugePage;  // smaller buffers may hold no whole huge page
constexpr int kTopPad = 64 << 20;            // the heap grows in steps of this many bytes at least

// glibc's initial values (malloc.c); its own growing of the mmap threshold ends with the first mallopt.
constexpr int kDefaultThreshold = 128 * 1024, kDefaultMmapMax = 65536, kDefaultTopPad = 0;

// The pointer that malloc gave, stored right before the aligned buffer.
void*& origin(void* data) { return static_cast<void**>(data)[-1]; }

void free_buffer(void* data) {
  if (data == nullptr) return;
  c10::profiledCPUMemoryReporter().Delete(data);
  std::free(origin(data));
}

class KeptAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &free_buffer, c10::Device(c10::DeviceType::CPU)};
    void* const block = std::malloc(bytes + kAlignment + sizeof(void*));
    // Out of memory is torch's to report, in its own words.
    if (block == nullptr) return c10::GetDefaultCPUAllocator()->allocate(bytes);
    const auto first = reinterpret_cast<uintptr_t>(block) + sizeof(void*);
    void* const data = reinterpret_cast<void*>((first + kAlignment - 1) / kAlignment * kAlignment);
    origin(data) = block;
    if (bytes >= kHugeFrom) {
      const auto begin = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
      const auto end = (reinterpret_cast<uintptr_t>(data) + bytes) / kHugePage * kHugePage;
      madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: failing changes nothing
    }
    c10::profiledCPUMemoryReporter().New(data, bytes);
    return {data, data, &free_buffer, c10::Device(c10::DeviceType::CPU)};
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_buffer; }

  void copy_data(void* dest, const void* src, std::size_t count) const override { default_copy_data(dest, src, count); }
};

// Never destroyed: buffers outlive static destructors.
KeptAllocator* kept_allocator() {
  static auto* allocator = new KeptAllocator;
  return allocator;
}

std::atomic<c10::Allocator*> replaced{nullptr};

// True when freed memory is kept afterwards.
bool keep_freed_memory() {
  if (c10::GetCPUAllocator() == kept_allocator()) return true;
  if (!mallopt(M_MMAP_MAX, 0) || !mallopt(M_TRIM_THRESHOLD, -1) || !mallopt(M_TOP_PAD, kTopPad)) return false;
  c10::Allocator* const before = c10::GetCPUAllocator();
  c10::SetCPUAllocator(kept_allocator());
  if (c10::GetCPUAllocator() == kept_allocator()) replaced = before;  // else somebody's has priority: it stays
  return true;
}

void return_freed_memory() {
  c10::Allocator* const before = replaced.exchange(nullptr);
  if (before != nullptr && c10::GetCPUAllocator() == kept_allocator()) c10::SetCPUAllocator(before);
  mallopt(M_MMAP_MAX, kDefaultMmapMax);
  mallopt(M_MMAP_THRESHOLD, kDefaultThreshold);
  mallopt(M_TRIM_THRESHOLD, kDefaultThreshold);
  mallopt(M_TOP_PAD, kDefaultTopPad);
  malloc_trim(0);
}

#else

bool keep_freed_memory() { return false; }
void return_freed_memory() {}

#endif

TORCH_LIBRARY_FRAGMENT(gnna, m) {
  m.def("keep_freed_memory() -> bool", &keep_freed_memory);
  m.def("return_freed_memory() -> ()", &return_freed_memory);
}

}  // namespace
}  // namespace gnna
