// Recognises a tensor again: by the version counter and the storage that it was made with, held so that neither can be
// mistaken for another. An address, a size or a counter made afresh (`t.data` has one) is never enough. What cannot be
// recognised is computed anew.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace gnna {

class Fingerprint;

// Guards everything that is found by identity: the sources, the plans, the CSR forms and the memo. One lock, because
// one call asks several of them. It is held over a fork.
std::recursive_mutex& recall_mutex();

// A version counter together with a storage. All views of one tensor share a source.
class Source {
 public:
  Source(const at::Tensor& tensor, bool constant);
  ~Source();

  // False once nobody but the caches can reach the tensor: its storage, or every tensor with this counter, is gone.
  bool alive() const { return !storage_.expired() && !counter_.unique(); }
  // Nobody writes to it: the plug-in made it, or its framework guarantees that. Ends with a counted write.
  bool constant() const { return constant_version_ == static_cast<int64_t>(counter_.current_version()); }
  void set_constant() { constant_version_ = counter_.current_version(); }
  int64_t storage_bytes() const { return storage_bytes_; }

 private:
  friend class TensorKey;
  friend class Sources;
  c10::weak_intrusive_ptr<c10::StorageImpl> storage_;
  c10::VariableVersion counter_;  // shared with the tensors: while it is held, its address names nothing else
  int64_t storage_bytes_;
  int64_t constant_version_ = -1;
  const void* copies_ = nullptr;  // the copy-on-write context of an original (make_original), else nullptr
  std::unordered_map<size_t, std::weak_ptr<Fingerprint>> prints_;
};

// One view of a source at one version.
class TensorKey {
 public:
  // nullopt for tensors that cannot be recognised: inference tensors and the parts of a torch.sparse matrix have no
  // version counter.
  static std::optional<TensorKey> of(const at::Tensor& tensor);

  bool operator==(const TensorKey& other) const {
    return source_ == other.source_ && version_ == other.version_ && same_place(other);
  }
  // The same elements of the same memory, whatever was written to it since.
  bool same_place(const TensorKey& other) const {
    return source_ == other.source_ && data_ == other.data_ && dtype_ == other.dtype_ && sizes_ == other.sizes_ &&
           strides_ == other.strides_;
  }
  bool alive() const { return source_->alive(); }
  bool constant() const { return source_->constant(); }
  int64_t version() const { return version_; }
  const std::shared_ptr<Source>& source() const { return source_; }
  size_t hash() const { return hash_; }

  // The checksum of these elements, taken from the tensor unless a cache entry holds it already. nullptr for constants,
  // which need none.
  std::shared_ptr<Fingerprint> fingerprint(const at::Tensor& tensor) const;

 private:
  TensorKey(std::shared_ptr<Source> source, const at::Tensor& tensor, int64_t version);
  std::shared_ptr<Source> source_;
  const void* data_;
  at::DimVector sizes_, strides_;
  int64_t version_;
  at::ScalarType dtype_;
  size_t hash_;
};

// A result of the plug-in's own that a cache keeps and hands out as copies. Nobody else holds it, so it is constant.
class Original {
 public:
  // nullopt if torch cannot copy this tensor on write: its memory is not from torch's own allocator.
  static std::optional<Original> of(const at::Tensor& result);

  // A tensor of the caller's own with the same elements. torch copies them when the caller writes to it. Until then
  // every view of the copy is recognised as the same view of the original.
  at::Tensor copy() const;
  int64_t bytes() const { return static_cast<int64_t>(tensor_.nbytes()); }
  // Keeps the memory alive, for a captured CUDA graph that reads it.
  const at::Tensor& tensor() const { return tensor_; }

 private:
  Original(at::Tensor tensor, std::shared_ptr<Source> source);
  at::Tensor tensor_;
  std::shared_ptr<Source> source_;
};

// Says that nobody writes to this tensor although somebody else made it, such as the edges of a DGL graph.
void mark_constant(const at::Tensor& tensor);

}  // namespace gnna
