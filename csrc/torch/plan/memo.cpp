// The entries of the memo, and its ops recall and remember.
#include "plan/memo.h"

#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <algorithm>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "common/streams.h"
#include "plan/builder.h"
#include "plan/cache.h"
#include "plan/captures.h"
#include "plan/recall.h"

namespace gnna {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

// A result that all callers share, because they promised not to write to it. A counted write ends the entry.
class Shared {
 public:
  // Detached, because freeing a tensor that has a Python object needs the interpreter's lock.
  explicit Shared(const at::Tensor& result) : tensor_(result.detach()), version_(tensor_._version()) {
    mark_constant(tensor_);
  }
  bool unchanged() const { return static_cast<int64_t>(tensor_._version()) == version_; }
  at::Tensor view() const { return tensor_.detach(); }
  const at::Tensor& tensor() const { return tensor_; }

 private:
  at::Tensor tensor_;
  int64_t version_;
};

struct Remembered {
  std::vector<Original> results;
  std::vector<Shared> shared;  // in their place
  std::string form;            // a note of the caller about what they are
  int64_t stream_id = 0;       // on which they were computed; on another they may be incomplete

  std::vector<at::Tensor> handed_out() const {
    std::vector<at::Tensor> out;
    out.reserve(results.size() + shared.size());
    for (const Original& result : results) out.push_back(result.copy());
    for (const Shared& result : shared) out.push_back(result.view());
    return out;
  }
};

using Node = Recall<Remembered>::Node;

class Memo {
 public:
  // Returns copies of the results, or none if there are no results or another stream computed them. During capture
  // results of any stream are returned, because a capture waits for all streams before it begins. They are then held
  // for the graph.
  std::tuple<std::vector<at::Tensor>, std::string> find(const RecallKey& key, at::TensorList inputs, int64_t stream,
                                                        bool capturing) {
    Remembered found;
    Prints prints;
    {
      const Lock lock(recall_mutex());
      Node* const node = memo_.find(key);
      if (node == nullptr || (node->value.stream_id != stream && !capturing)) return {};
      found = node->value;
      prints = node->prints;
    }
    const bool written =
        std::any_of(found.shared.begin(), found.shared.end(), [](const Shared& s) { return !s.unchanged(); });
    if (written || !unchanged(prints, inputs)) {
      const Lock lock(recall_mutex());
      memo_.erase_all_of(key);
      return {};
    }
    if (capturing) {
      for (const Original& result : found.results) hold_for_captures(result.tensor());
      for (const Shared& result : found.shared) hold_for_captures(result.tensor());
    }
    return {found.handed_out(), found.form};
  }

  void insert(const RecallKey& key, Prints prints, Remembered value) {
    int64_t bytes = 0;
    for (const Original& result : value.results) bytes += result.bytes();
    for (const Shared& result : value.shared) bytes += static_cast<int64_t>(result.tensor().nbytes());
    const Lock lock(recall_mutex());
    if (Node* const there = memo_.peek(key)) memo_.erase(*there);
    memo_.insert(key, std::move(value), bytes, std::move(prints));
  }

  Recall<Remembered>& entries() { return memo_; }

 private:
  Recall<Remembered> memo_{int64_t{4} << 30, std::numeric_limits<size_t>::max()};
};

Memo& memo() {
  static auto* const made = new Memo;  // never destroyed, because CUDA shuts down before static destructors run
  return *made;
}

std::tuple<std::vector<at::Tensor>, std::string> recall(c10::string_view name, at::TensorList inputs) {
  const auto key = recall_key(inputs, {}, std::string(name.data(), name.size()));
  if (!key) return {};
  const at::Device device = inputs[0].device();
  return memo().find(*key, inputs, current_stream_id(device), capturing_on(device));
}

// Stores results under their name and inputs and returns copies of them, or views if they are shared. Returns the
// results themselves if they cannot be stored: during capture, if a result shares memory with an input, or if it cannot
// become an Original.
std::vector<at::Tensor> remember(c10::string_view name, at::TensorList inputs, at::TensorList results, std::string form,
                                 bool shared) {
  const auto key = recall_key(inputs, {}, std::string(name.data(), name.size()));
  const auto is_an_input = [&](const at::Tensor& result) {
    return std::any_of(inputs.begin(), inputs.end(),
                       [&](const at::Tensor& input) { return input.storage().is_alias_of(result.storage()); });
  };
  if (!key || capturing_on(inputs[0].device()) || std::any_of(results.begin(), results.end(), is_an_input))
    return results.vec();
  Remembered value;
  value.form = std::move(form);
  value.stream_id = current_stream_id(inputs[0].device());
  for (const at::Tensor& result : results) {
    if (shared) {
      value.shared.emplace_back(result);
      continue;
    }
    auto original = Original::of(result);
    if (!original) return results.vec();
    value.results.push_back(*std::move(original));
  }
  Prints prints = fingerprints(*key, inputs);
  std::vector<at::Tensor> handed_out = value.handed_out();
  memo().insert(*key, std::move(prints), std::move(value));
  return handed_out;
}

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("recall", &recall);
  m.impl("remember", &remember);
}

}  // namespace

void sweep_memo() {
  const Lock lock(recall_mutex());
  memo().entries().sweep();
}

void clear_memo() {
  const Lock lock(recall_mutex());
  memo().entries().clear();
}

void set_max_memo_bytes(int64_t bytes) {
  const Lock lock(recall_mutex());
  memo().entries().set_max_bytes(bytes);
}

}  // namespace gnna
