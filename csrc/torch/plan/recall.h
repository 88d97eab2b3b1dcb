// A cache of values by the identity of one to three tensors, a name and two numbers. If a bound on bytes or entries is
// exceeded, the least recently used entries are evicted. An entry is also erased
//  - when another version of one of its tensors is looked up or inserted;
//  - soon after one of its tensors dies, because every insertion checks a few entries, the newest among them;
//  - when entries for slices of one tensor (a sliding window, a growing prefix) exceed eight times that tensor's bytes.
// find() and insert() take constant time, whatever the number of entries. The caller holds the recall mutex.
#pragma once

#include <c10/util/SmallVector.h>
#include <c10/util/hash.h>

#include <algorithm>
#include <array>
#include <list>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "plan/fingerprint.h"
#include "plan/identity.h"

namespace gnna {

struct RecallKey {
  c10::SmallVector<TensorKey, 3> tensors;
  std::array<int64_t, 2> numbers{};
  std::string name;

  size_t hash() const {
    size_t h = c10::get_hash(numbers[0], numbers[1], name);
    for (const TensorKey& tensor : tensors) h = c10::hash_combine(h, tensor.hash());
    return h;
  }
  bool operator==(const RecallKey& other) const {
    return numbers == other.numbers && name == other.name && tensors.size() == other.tensors.size() &&
           std::equal(tensors.begin(), tensors.end(), other.tensors.begin());
  }
  bool alive() const {
    return std::all_of(tensors.begin(), tensors.end(), [](const TensorKey& t) { return t.alive(); });
  }
};

// Returns the key of these tensors, or nullopt if one of them cannot be recognised.
inline std::optional<RecallKey> recall_key(at::ArrayRef<at::Tensor> tensors, std::array<int64_t, 2> numbers,
                                           std::string name = {}) {
  RecallKey key;
  for (const at::Tensor& tensor : tensors) {
    auto part = TensorKey::of(tensor);
    if (!part) return std::nullopt;
    key.tensors.push_back(*std::move(part));
  }
  key.numbers = numbers;
  key.name = std::move(name);
  return key;
}

using Prints = c10::SmallVector<std::shared_ptr<Fingerprint>, 3>;

// Returns one fingerprint per tensor of the key.
inline Prints fingerprints(const RecallKey& key, at::ArrayRef<at::Tensor> tensors) {
  Prints prints;
  for (size_t i = 0; i < tensors.size(); ++i) prints.push_back(key.tensors[i].fingerprint(tensors[i]));
  return prints;
}

template <typename Value>
class Recall {
 public:
  struct Node;
  using Nodes = std::list<Node>;  // most recently used first
  using Iterator = typename Nodes::iterator;

  // The nodes whose keys contain tensors of one source.
  struct Bucket {
    int64_t version = 0;
    int64_t bytes = 0, storage_bytes = 0;
    std::list<Iterator> nodes;  // about most recently used first: use() updates one bucket of a node
  };

  struct Node {
    RecallKey key;
    Value value;
    int64_t bytes = 0;
    size_t hash = 0;
    Prints prints;  // one per tensor, or none
    c10::SmallVector<std::pair<Bucket*, typename std::list<Iterator>::iterator>, 3> places;
    Node* dependent = nullptr;  // erased with this node
    Node* owner = nullptr;      // the node whose value this one shares
    Iterator self;
  };

  Recall(int64_t max_bytes, size_t max_entries) : max_bytes_(max_bytes), max_entries_(max_entries) {}

  // Returns the node of this key, or nullptr. Marks it and its owner as recently used.
  Node* find(const RecallKey& key) {
    for (const TensorKey& tensor : key.tensors) drop_other_versions(tensor);
    Node* const node = peek(key);
    if (node) use(*node);
    return node;
  }

  // As find(), but erases nothing and marks nothing as used.
  Node* peek(const RecallKey& key) const {
    const auto range = index_.equal_range(key.hash());
    for (auto it = range.first; it != range.second; ++it)
      if (it->second->key == key) return &*it->second;
    return nullptr;
  }

  // Inserts a key that is not present and evicts others to make room. Returns nullptr if `bytes` exceeds the bound. A
  // node with an owner is that node's dependent: it shares the owner's value and counts 0 bytes.
  Node* insert(RecallKey key, Value value, int64_t bytes, Prints prints, Node* owner = nullptr) {
    if (bytes > max_bytes_ || max_entries_ == 0) return nullptr;
    for (const TensorKey& tensor : key.tensors) drop_other_versions(tensor);
    sweep_some();
    const size_t hash = key.hash();
    nodes_.push_front({std::move(key), std::move(value), bytes, hash, std::move(prints), {}, nullptr, owner, {}});
    Node& node = nodes_.front();
    node.self = nodes_.begin();
    if (owner) owner->dependent = &node;
    index_.emplace(hash, node.self);
    for (const TensorKey& tensor : node.key.tensors) {
      Bucket& bucket = buckets_[tensor.source().get()];
      bucket.version = tensor.version();
      bucket.storage_bytes = tensor.source()->storage_bytes();
      const auto is_there = [&](const auto& place) { return place.first == &bucket; };
      if (std::any_of(node.places.begin(), node.places.end(), is_there)) continue;
      bucket.nodes.push_front(node.self);
      bucket.bytes += bytes;
      node.places.emplace_back(&bucket, bucket.nodes.begin());
    }
    bytes_ += bytes;
    bound_slices(node);
    shrink(&node);
    return &node;
  }

  // Erases a node and its dependent.
  void erase(Node& node) {
    if (node.dependent) erase(*node.dependent);
    if (node.owner) node.owner->dependent = nullptr;
    const auto range = index_.equal_range(node.hash);
    for (auto slot = range.first; slot != range.second; ++slot) {
      if (&*slot->second != &node) continue;
      index_.erase(slot);
      break;
    }
    for (auto& [bucket, place] : node.places) {
      bucket->nodes.erase(place);
      bucket->bytes -= node.bytes;
    }
    for (const TensorKey& tensor : node.key.tensors) {
      const auto bucket = buckets_.find(tensor.source().get());
      if (bucket != buckets_.end() && bucket->second.nodes.empty()) buckets_.erase(bucket);
    }
    bytes_ -= node.bytes;
    if (hand_ == node.self) ++hand_;
    nodes_.erase(node.self);
  }

  // Erases every node of these tensors' sources. Called when an element was found changed.
  void erase_all_of(const RecallKey& key) {
    for (const TensorKey& tensor : key.tensors) erase_all_of(tensor);
  }

  // Erases every node of this tensor's source, including those of other views.
  void erase_all_of(const TensorKey& tensor) {
    while (Bucket* const bucket = bucket_of(tensor)) erase(*bucket->nodes.front());
  }

  // Calls use(node) for every node whose key contains a tensor of this tensor's source.
  template <typename Use>
  void for_each_of(const TensorKey& tensor, const Use& use) {
    if (Bucket* const bucket = bucket_of(tensor))
      for (const Iterator& node : bucket->nodes) use(*node);
  }

  void set_bytes(Node& node, int64_t bytes) {
    for (auto& [bucket, place] : node.places) bucket->bytes += bytes - node.bytes;
    bytes_ += bytes - node.bytes;
    node.bytes = bytes;
    shrink(&node);
  }

  void set_max_bytes(int64_t bytes) {
    max_bytes_ = bytes;
    shrink(nullptr);
  }

  // Erases all nodes with dead tensors. A dependent has the same tensors as its owner and is erased with it.
  void sweep() {
    std::vector<Node*> dead;
    for (Node& node : nodes_)
      if (node.owner == nullptr && !node.key.alive()) dead.push_back(&node);
    for (Node* const node : dead) erase(*node);
  }

  void clear() {
    while (!nodes_.empty()) erase(nodes_.front());
  }

  Nodes& nodes() { return nodes_; }
  int64_t bytes() const { return bytes_; }
  int64_t max_bytes() const { return max_bytes_; }

 private:
  static constexpr int kSweptNewest = 4, kSweptOthers = 8;
  static constexpr int64_t kSlices = 8;

  Bucket* bucket_of(const TensorKey& tensor) {
    const auto bucket = buckets_.find(tensor.source().get());
    return bucket == buckets_.end() ? nullptr : &bucket->second;
  }

  void use(Node& node) {
    if (node.owner) nodes_.splice(nodes_.begin(), nodes_, node.owner->self);
    if (hand_ == node.self) ++hand_;
    nodes_.splice(nodes_.begin(), nodes_, node.self);
    auto& [bucket, place] = node.places.front();
    bucket->nodes.splice(bucket->nodes.begin(), bucket->nodes, place);
  }

  void drop_other_versions(const TensorKey& tensor) {
    const Bucket* const bucket = bucket_of(tensor);
    if (bucket && bucket->version != tensor.version()) erase_all_of(tensor);
  }

  // Erases dead nodes among the newest ones, because new edge lists often die soon, and among a few others in turn.
  void sweep_some() {
    for (int erased = 0; erased < kSweptNewest; ++erased) {
      const auto end = std::next(nodes_.begin(), std::min<ptrdiff_t>(kSweptNewest, nodes_.size()));
      const auto dead = std::find_if(nodes_.begin(), end, [](const Node& node) { return !node.key.alive(); });
      if (dead == end) break;
      erase(*dead);
    }
    for (int i = 0; i < kSweptOthers && !nodes_.empty(); ++i) {
      if (hand_ == nodes_.end()) hand_ = nodes_.begin();
      Node& node = *hand_++;
      if (!node.key.alive()) erase(node);
    }
  }

  // Bounds the bytes of the nodes that share a source with `node`. Keeps nodes of the same slices.
  void bound_slices(const Node& node) {
    const auto shares_a_tensor = [&](const Node& other) {
      return std::any_of(other.key.tensors.begin(), other.key.tensors.end(), [&](const TensorKey& a) {
        return std::any_of(node.key.tensors.begin(), node.key.tensors.end(),
                           [&](const TensorKey& b) { return a.same_place(b); });
      });
    };
    for (const auto& [bucket, place] : node.places) {
      while (bucket->bytes > kSlices * bucket->storage_bytes && !shares_a_tensor(*bucket->nodes.back()))
        erase(*bucket->nodes.back());
    }
  }

  // Evicts nodes until the bounds hold. `kept` is not evicted only to reduce the number of nodes.
  void shrink(const Node* kept) {
    while ((bytes_ > max_bytes_ || nodes_.size() > max_entries_) && !nodes_.empty()) {
      Node* last = &nodes_.back();
      if (last->owner) last = last->owner;
      if (last == kept && bytes_ <= max_bytes_) return;
      erase(*last);
    }
  }

  Nodes nodes_;
  Iterator hand_ = nodes_.end();  // the next node that sweep_some() checks
  std::unordered_multimap<size_t, Iterator> index_;
  std::unordered_map<const Source*, Bucket> buckets_;
  int64_t bytes_ = 0, max_bytes_;
  size_t max_entries_;
};

}  // namespace gnna
