// The most recently used partitions of one plan's rows on a GPU. There is a bound, because configurations that tuning
// tries and drops must not hold memory as long as the graph lives.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

namespace gnna {

struct PartitionKey {
  int64_t split_above = 0, chunk_edges = 0;
  int64_t group_size = 0;  // 0: no neighbour groups
  bool operator==(const PartitionKey& o) const {
    return split_above == o.split_above && chunk_edges == o.chunk_edges && group_size == o.group_size;
  }
};

// A gnna::cuda::Partition and the memory that it points to.
struct KeptPartition {
  PartitionKey key;
  at::Tensor chunks;  // gnna::cuda::RowChunk as bytes
  at::Tensor group_first, group_row;
  int64_t chunk_count = 0, group_count = 0;
  bool needs_combining = false;  // some row has several chunks
  int64_t stream_id = 0;         // the stream on which the memory was allocated
};

class Partitions {
 public:
  std::shared_ptr<const KeptPartition> find(const PartitionKey& key) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = std::find_if(kept_.begin(), kept_.end(), [&](const auto& k) { return k->key == key; });
    if (it == kept_.end()) return nullptr;
    kept_.splice(kept_.begin(), kept_, it);
    return kept_.front();
  }

  // The most recently used key comes last.
  std::vector<PartitionKey> keys() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<PartitionKey> found;
    for (auto it = kept_.rbegin(); it != kept_.rend(); ++it) found.push_back((*it)->key);
    return found;
  }

  std::shared_ptr<const KeptPartition> keep(KeptPartition&& partition) {
    const std::lock_guard<std::mutex> lock(mutex_);
    kept_.push_front(std::make_shared<const KeptPartition>(std::move(partition)));
    if (kept_.size() > kMost) kept_.pop_back();
    return kept_.front();
  }

 private:
  static constexpr size_t kMost = 4;  // one for kernel `row`, and those of kernel `group` for a few widths
  std::mutex mutex_;
  std::list<std::shared_ptr<const KeptPartition>> kept_;
};

}  // namespace gnna
