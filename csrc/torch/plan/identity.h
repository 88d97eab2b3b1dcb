// Recognises a tensor by its version counter and its storage. Both are held, so that their addresses cannot be reused
// for others. An address, a size, or a new counter (such as that of `t.data`) is never enough. Results for a tensor
// that cannot be recognised are computed again.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/TensorImpl.h>

#include <memory>
#include <mutex>
#include <optional>
#include <unordered_map>

namespace gnna {

class Fingerprint;

// Guards everything that is found by identity: the sources, the plans, the CSR forms and the memo. There is one lock,
// because a call uses several of them. It is held over a fork.
std::recursive_mutex& recall_mutex();

// A version counter with its storage. All views of a tensor share one source.
class Source {
 public:
  Source(const at::Tensor& tensor, bool constant);
  ~Source();

  // Returns false once only the caches refer to it: its storage has been freed, or every tensor with its counter has.
  bool alive() const { return !storage_.expired() && !counter_.unique(); }
  // Returns whether the elements never change: the plug-in made the tensor, or its framework guarantees it. A counted
  // write ends this.
  bool constant() const { return constant_version_ == static_cast<int64_t>(counter_.current_version()); }
  void set_constant() { constant_version_ = counter_.current_version(); }
  int64_t storage_bytes() const { return storage_bytes_; }

 private:
  friend class TensorKey;
  friend class Sources;
  c10::weak_intrusive_ptr<c10::StorageImpl> storage_;
  c10::VariableVersion counter_;  // shared with the tensors; held, so that its address is not reused
  int64_t storage_bytes_;
  int64_t constant_version_ = -1;
  const void* copies_ = nullptr;  // the copy-on-write context of an Original, else nullptr
  std::unordered_map<size_t, std::weak_ptr<Fingerprint>> prints_;
};

// One view of a source at one version.
class TensorKey {
 public:
  // Returns nullopt for a tensor that cannot be recognised. Inference tensors have no version counter.
  static std::optional<TensorKey> of(const at::Tensor& tensor);

  bool operator==(const TensorKey& other) const {
    return source_ == other.source_ && version_ == other.version_ && same_place(other);
  }
  // Returns whether both are the same elements of the same memory, at any version.
  bool same_place(const TensorKey& other) const {
    return source_ == other.source_ && data_ == other.data_ && dtype_ == other.dtype_ && sizes_ == other.sizes_ &&
           strides_ == other.strides_;
  }
  bool alive() const { return source_->alive(); }
  bool constant() const { return source_->constant(); }
  int64_t version() const { return version_; }
  const std::shared_ptr<Source>& source() const { return source_; }
  size_t hash() const { return hash_; }

  // Returns the checksum of these elements. Reuses that of a cache entry, or reads the whole tensor. Returns nullptr
  // for constants, which need none.
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

// A result of the plug-in that a cache keeps. Callers get copies. Nothing else refers to it, so it is constant.
class Original {
 public:
  // Returns nullopt if torch cannot copy this tensor on write, because its memory is not from torch's allocator.
  static std::optional<Original> of(const at::Tensor& result);

  // Returns a tensor with the same elements that the caller owns. torch copies the elements when the caller writes to
  // it. Until then every view of the copy is recognised as the same view of the original.
  at::Tensor copy() const;
  int64_t bytes() const { return static_cast<int64_t>(tensor_.nbytes()); }
  // The original itself, so that its memory can be held for a captured CUDA graph.
  const at::Tensor& tensor() const { return tensor_; }

 private:
  Original(at::Tensor tensor, std::shared_ptr<Source> source);
  at::Tensor tensor_;
  std::shared_ptr<Source> source_;
};

// Declares that this tensor is never written to, although the plug-in did not make it, such as the edges of a DGL
// graph. It then needs no checksum.
void mark_constant(const at::Tensor& tensor);

}  // namespace gnna
