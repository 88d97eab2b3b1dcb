// The ways in which one plan's rows have been dealt out on a GPU, the latest few of them. A configuration that is tried
// and given up (tuning does that) must not hold memory for as long as the graph lives.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <list>
#include <memory>
#include <mutex>
#include <vector>

namespace gnna {

struct PartitionKey {
  int64_t long_row = 0, item_edges = 0;
  int64_t ngs = 0;  // 0: no neighbour groups
  bool operator==(const PartitionKey& o) const {
    return long_row == o.long_row && item_edges == o.item_edges && ngs == o.ngs;
  }
};

// gnna::cuda::Partition with the memory that it points to.
struct KeptPartition {
  PartitionKey key;
  at::Tensor items;  // gnna::cuda::LongItem as bytes
  at::Tensor group_first, group_row;
  int64_t item_count = 0, group_count = 0;
  bool items_meet = false;  // some row has several
  int64_t stream_id = 0;    // whose memory it is
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

  std::vector<PartitionKey> keys() {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<PartitionKey> found;
    for (auto it = kept_.rbegin(); it != kept_.rend(); ++it) found.push_back((*it)->key);  // the latest last
    return found;
  }

  std::shared_ptr<const KeptPartition> keep(KeptPartition&& partition) {
    const std::lock_guard<std::mutex> lock(mutex_);
    kept_.push_front(std::make_shared<const KeptPartition>(std::move(partition)));
    if (kept_.size() > kMost) kept_.pop_back();
    return kept_.front();
  }

 private:
  static constexpr size_t kMost = 4;  // the row kernel's cut, and what a few widths of neighbour groups need
  std::mutex mutex_;
  std::list<std::shared_ptr<const KeptPartition>> kept_;
};

}  // namespace gnna
