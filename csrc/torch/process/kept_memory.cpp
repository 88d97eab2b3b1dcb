// Keeps freed CPU buffers for later allocations of about their size. Otherwise glibc returns every large buffer to the
// kernel when it is freed, and the next training step pays a page fault per 4 KiB for the same buffers again.
// All buffers come from torch's CPU allocator, and each deleter accepts any of them. A buffer may therefore be
// allocated under one allocator and freed under the other.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <unordered_map>
#include <utility>

#if defined(__GLIBC__)
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#endif

C10_DECLARE_bool(caffe2_cpu_allocator_do_zero_fill);
C10_DECLARE_bool(caffe2_cpu_allocator_do_junk_fill);

namespace gnna {
namespace {

#if defined(__GLIBC__)

constexpr size_t kMinBytes = 1 << 20;   // smaller buffers come from glibc's heap, which recycles them
constexpr size_t kMaxWaste = 4;         // a block serves a request if it is at most 1/4 larger
constexpr size_t kMaxTotalWaste = 128;  // the waste of all blocks in use is at most 1/128 of the peak
constexpr size_t kRounding = 8 << 10;   // a block may be larger than its request by this without counting as waste
constexpr uint64_t kMaxAge = 1024;      // a block is returned if this many large allocations did not use it

// Rows that are gathered at random are read faster from huge pages, but the first touch of memory in huge pages can
// take six times as long. Huge pages are therefore used only for sizes that are requested often.
constexpr uint32_t kRequestsBeforeHugePages = 64;
constexpr size_t kMostSizes = 4096;  // number of sizes whose requests are counted

constexpr size_t kPage = 4096, kHugePage = 2 << 20;

// glibc raises its mapping threshold to the largest block freed, up to 32 MiB. Smaller blocks come from the heap, and
// the pool cannot keep them, so the threshold is fixed while the pool is open. A fixed threshold disables the
// adjustment of the trim threshold too (128 KiB), so that one is also set. After the pool is closed, both have the
// values at which glibc's adjustment ends.
constexpr int kMapFrom = kMinBytes, kTrimFrom = 64 << 20;
constexpr int kHighestMapFrom = 32 << 20;

// Returns whether glibc mapped the block on its own instead of taking it from its heap, by the second bit of glibc's
// chunk header. The header is read only if the block starts where glibc's aligned mappings do, so that it lies in the
// block's own page. Under another malloc the answer is arbitrary, which is safe, because it only decides whether to
// keep the block.
bool is_mapped(const void* data) {
  const bool may_be = reinterpret_cast<uintptr_t>(data) % kPage == c10::gAlignment;
  return may_be && (static_cast<const size_t*>(data)[-1] & 2) != 0;
}

// Calls madvise with this advice for the whole huge pages in a block. Best effort: a failure changes nothing.
void advise_huge_pages(void* data, size_t size, int advice) {
  const auto first = (reinterpret_cast<uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
  const auto last = (reinterpret_cast<uintptr_t>(data) + size) / kHugePage * kHugePage;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, advice);
}

c10::Allocator* torch_allocator() { return c10::GetDefaultCPUAllocator(); }

// Blocks in use, and free blocks that are kept for reuse. Thread-safe. Memory is returned after the lock is released.
// Apart from the waste allowed above, both together never exceed the peak of the blocks in use, so keeping blocks does
// not raise the peak of the process. A block that is freed without the pool, such as by std::free, counts as in use
// until its address is allocated again or the pool is closed. Only blocks that glibc mapped on their own are kept.
// Freeing such a block returns all of its pages. A free block inside glibc's heap can stay resident, so a bound in
// bytes would not bound the resident memory.
class BlockPool {
 public:
  void open() {
    const std::lock_guard<std::mutex> lock(mutex_);
    open_ = true;
  }

  // Returns the kept blocks and forgets the blocks in use. The deleter then frees those as torch does.
  void close() {
    KeptByAge released;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      open_ = false;
      used_.clear();
      requests_.clear();
      used_size_ = used_bytes_ = peak_ = 0;
      drop_until([] { return false; }, released);
    }
    free_all(released);
  }

  void drop_all() {
    KeptByAge released;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      drop_until([] { return false; }, released);
    }
    free_all(released);
  }

  // Returns a kept block that fits and counts it as in use. If none fits, drops kept blocks to make room for a new one
  // and returns nullptr.
  void* take(size_t bytes) {
    KeptByAge released;
    const Taken taken = take(bytes, released);
    free_all(released);
    constexpr int kCollapse = 25;  // MADV_COLLAPSE: moves memory that was touched (Linux 6.1; named since glibc 2.37)
    if (taken.to_huge_pages) advise_huge_pages(taken.data, taken.size, kCollapse);
    return taken.data;
  }

  // Counts a new block as in use. Nothing may have been written to it yet.
  void add(void* data, size_t bytes) {
    const size_t size = malloc_usable_size(data);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!open_) return;
    const bool huge = recurs(bytes) && is_mapped(data);
    if (huge) advise_huge_pages(data, size, MADV_HUGEPAGE);
    use(data, {size, size, huge});
  }

  // Keeps a freed block. Returns false if the caller has to free it instead.
  bool put(void* data, size_t size) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = used_.find(data);
    if (found == used_.end()) return false;
    // If the sizes differ, the known block was freed elsewhere and this is a new one at its address.
    const bool same = found->second.size == size;
    const bool huge = found->second.huge;
    stop_using(found);
    return same && is_mapped(data) && keep(data, size, huge);
  }

  size_t kept_bytes() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return kept_size_;
  }

  // The lock is held over a fork, so that no other thread leaves it locked in the child. The child drops the kept
  // blocks, because a write to a page that it shares with its parent copies the page.
  void before_fork() { mutex_.lock(); }
  void after_fork_in_parent() { mutex_.unlock(); }
  void after_fork_in_child() {
    mutex_.unlock();
    drop_all();
  }

 private:
  struct Used {
    size_t size;   // size of the block
    size_t bytes;  // size that torch's allocator would have used for the request
    bool huge;     // whether it is in huge pages
  };
  struct Kept {
    void* data;
    size_t size;
    uint64_t since;  // value of allocations_ when it was freed
    bool huge;
  };
  struct Taken {
    void* data = nullptr;
    size_t size = 0;
    bool to_huge_pages = false;  // the caller has to move it there
  };
  using UsedBlocks = std::unordered_map<void*, Used>;
  using KeptByAge = std::map<int64_t, Kept>;

  Taken take(size_t bytes, KeptByAge& released) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!open_) return {};
    ++allocations_;
    if (requests_.size() >= kMostSizes) requests_.clear();
    ++requests_[bytes];
    drop_until([&] { return kept_.begin()->second.since + kMaxAge >= allocations_; }, released);
    const auto fit = kept_by_size_.lower_bound({bytes, INT64_MIN});
    if (fit != kept_by_size_.end() && fits(fit->first, bytes)) {
      const auto kept = kept_.find(-fit->second);
      const auto [data, size, since, huge] = kept->second;
      const bool moves = recurs(bytes) && !huge;
      use(data, {size, size - bytes <= kRounding ? size : bytes, huge || moves});
      kept_size_ -= fit->first;
      kept_by_size_.erase(fit);
      kept_.erase(kept);
      return {data, size, moves};
    }
    const size_t limit = std::max(peak_, used_bytes_ + bytes);
    drop_until([&] { return used_size_ + kept_size_ + bytes <= limit; }, released);
    return {};
  }

  bool recurs(size_t bytes) const {
    const auto found = requests_.find(bytes);
    return found != requests_.end() && found->second > kRequestsBeforeHugePages;
  }

  bool fits(size_t size, size_t bytes) const {
    const size_t waste = size - bytes;
    return waste <= kRounding ||
           (waste <= bytes / kMaxWaste && used_size_ - used_bytes_ + waste <= peak_ / kMaxTotalWaste);
  }

  void use(void* data, Used block) {
    const auto [known, is_new] = used_.try_emplace(data, block);
    if (!is_new) {  // the old block was freed elsewhere
      used_size_ -= known->second.size;
      used_bytes_ -= known->second.bytes;
      known->second = block;
    }
    used_size_ += block.size;
    used_bytes_ += block.bytes;
    peak_ = std::max(peak_, used_bytes_);
  }

  void stop_using(UsedBlocks::iterator block) {
    used_size_ -= block->second.size;
    used_bytes_ -= block->second.bytes;
    used_.erase(block);
  }

  bool keep(void* data, size_t size, bool huge) noexcept {
    const int64_t age = ++clock_;
    try {
      kept_by_size_.emplace(size, -age);
      kept_.emplace_hint(kept_.end(), age, Kept{data, size, allocations_, huge});
    } catch (const std::bad_alloc&) {
      kept_by_size_.erase({size, -age});
      return false;
    }
    kept_size_ += size;
    return true;
  }

  // Moves kept blocks to `released`, the least recently freed first, until enough() is true. Does not allocate.
  template <typename Enough>
  void drop_until(Enough enough, KeptByAge& released) {
    while (!kept_.empty() && !enough()) {
      const auto oldest = kept_.begin();
      kept_by_size_.erase({oldest->second.size, -oldest->first});
      kept_size_ -= oldest->second.size;
      released.insert(kept_.extract(oldest));
    }
  }

  static void free_all(const KeptByAge& released) {
    for (const auto& [age, block] : released) c10::free_cpu(block.data);
  }

  std::mutex mutex_;
  bool open_ = false;
  uint64_t allocations_ = 0;
  int64_t clock_ = 0;
  UsedBlocks used_;
  size_t used_size_ = 0, used_bytes_ = 0;
  size_t peak_ = 0;                                // of used_bytes_
  std::unordered_map<size_t, uint32_t> requests_;  // by size
  KeptByAge kept_;
  std::set<std::pair<size_t, int64_t>> kept_by_size_;  // (size, -key in kept_): of one size, the latest freed first
  size_t kept_size_ = 0;
};

// Never destroyed: buffers outlive static destructors.
BlockPool& pool() {
  static auto* made = [] {
    auto* blocks = new BlockPool;
    pthread_atfork([] { pool().before_fork(); }, [] { pool().after_fork_in_parent(); },
                   [] { pool().after_fork_in_child(); });
    return blocks;
  }();
  return *made;
}

// Accepts every pointer that torch's deleter accepts.
void free_or_keep(void* data) {
  const size_t size = data == nullptr ? 0 : malloc_usable_size(data);
  if (size < kMinBytes) return torch_allocator()->raw_deallocate(data);
  c10::profiledCPUMemoryReporter().Delete(data);  // before put(), after which another thread may take and report it
  if (!pool().put(data, size)) c10::free_cpu(data);
}

class KeepingAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    const bool large = bytes >= kMinBytes && !fills();
    if (large) {
      if (void* const data = pool().take(bytes)) {
        c10::profiledCPUMemoryReporter().New(data, bytes);
        return {data, data, &free_or_keep, c10::Device(c10::DeviceType::CPU)};
      }
    }
    c10::DataPtr fresh = allocate_fresh(bytes);
    TORCH_INTERNAL_ASSERT(fresh.compare_exchange_deleter(fresh.get_deleter(), &free_or_keep));
    if (large) pool().add(fresh.get(), bytes);
    return fresh;
  }

  c10::DeleterFnPtr raw_deleter() const override { return &free_or_keep; }

  void copy_data(void* dest, const void* src, std::size_t count) const override {
    torch_allocator()->copy_data(dest, src, count);
  }

 private:
  // Returns whether options of torch are set that write to every new buffer.
  static bool fills() { return FLAGS_caffe2_cpu_allocator_do_zero_fill || FLAGS_caffe2_cpu_allocator_do_junk_fill; }

  static c10::DataPtr allocate_fresh(size_t bytes) {
    try {
      return torch_allocator()->allocate(bytes);
    } catch (const c10::Error&) {
      pool().drop_all();
      return torch_allocator()->allocate(bytes);
    }
  }
};

KeepingAllocator* keeping_allocator() {
  static auto* allocator = new KeepingAllocator;
  return allocator;
}

// Returns whether freed memory is kept from now on. If an allocator other than torch's is installed, it stays in place
// and nothing is kept.
bool keep_freed_memory() {
  if (c10::GetCPUAllocator() == torch_allocator()) c10::SetCPUAllocator(keeping_allocator());
  const bool keeps = c10::GetCPUAllocator() == keeping_allocator();
  if (keeps) {
    mallopt(M_MMAP_THRESHOLD, kMapFrom);
    mallopt(M_TRIM_THRESHOLD, kTrimFrom);
    pool().open();
  }
  return keeps;
}

void return_freed_memory() {
  if (c10::GetCPUAllocator() == keeping_allocator()) c10::SetCPUAllocator(torch_allocator());
  pool().close();
  mallopt(M_MMAP_THRESHOLD, kHighestMapFrom);
  malloc_trim(0);
}

int64_t kept_bytes() { return static_cast<int64_t>(pool().kept_bytes()); }

#else

bool keep_freed_memory() { return false; }
void return_freed_memory() {}
int64_t kept_bytes() { return 0; }

#endif

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("keep_freed_memory", &keep_freed_memory);
  m.impl("return_freed_memory", &return_freed_memory);
  m.impl("kept_bytes", &kept_bytes);
}

}  // namespace
}  // namespace gnna
