// lift, the placeholder tensor for messages that have not been gathered, with its derivative; and the ops fill, arm and
// snapshot.
#include <ATen/ops/_lazy_clone.h>
#include <ATen/ops/clone.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/COW.h>
#include <c10/util/accumulate.h>
#include <torch/library.h>

#include "ops/autograd.h"

namespace gnna {
namespace {

// Sets, or with refuse = false clears, the error that is raised when code reads the memory of a storage that has none.
// Such reads bypass the dispatcher, so they cannot be intercepted. Torch releases without
// clear_data_ptr_access_error_msg_ could not clear the error again, so the overload below does nothing. In those
// releases data_ptr<T>() raises torch's own error, and an untyped data_ptr() returns address 0. Operations and queries
// of strides and device are intercepted in every release.
template <class Storage>
auto refuse_reads(Storage& storage, bool refuse, int) -> decltype(storage.clear_data_ptr_access_error_msg_()) {
  if (!refuse) return storage.clear_data_ptr_access_error_msg_();
  storage.release_data_and_set_meta_custom_data_ptr_error_msg_(
      "gnna_plugin: these messages have not been gathered yet, and their memory was read without a torch operation; "
      "call x_j.clone() first, or exclude the layer with `conv.gnna = False`");
}

template <class Storage>
void refuse_reads(Storage&, bool, long) {}

c10::StorageImpl& storage_of(const at::Tensor& t) {
  return *t.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
}

// Returns a dense tensor [E, *S] whose storage has the right size but no memory. Its views share the storage, so `fill`
// gives memory to all of them.
at::Tensor lift_on_any(const at::Tensor& x, const std::optional<at::Tensor>&, const at::Tensor& src) {
  at::DimVector sizes(x.sizes());
  sizes[0] = src.numel();
  const int64_t bytes = c10::multiply_integers(sizes) * static_cast<int64_t>(x.element_size());
  auto storage = c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), bytes,
                                                       at::DataPtr(nullptr, x.device()), nullptr, /*resizable=*/false);
  refuse_reads(*storage, true, 0);
  const auto key = x.is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU;
  at::Tensor out = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), x.dtype());
  out.unsafeGetTensorImpl()->set_sizes_contiguous(sizes);
  return out;
}

// Moves the memory of value into the storage that message and its views share. value must be a temporary that the
// caller does not use afterwards. It is copied first if its memory is not exactly the message's or if others share it.
void fill(const at::Tensor& message, const at::Tensor& value) {
  c10::StorageImpl& to = storage_of(message);
  const bool own = value.is_contiguous() && value.storage_offset() == 0 && storage_of(value).nbytes() == to.nbytes() &&
                   value.unsafeGetTensorImpl()->unsafe_storage().use_count() == 1;
  const at::Tensor given = own ? value : value.clone(at::MemoryFormat::Contiguous);
  c10::StorageImpl& from = storage_of(given);
  TORCH_CHECK(from.nbytes() == to.nbytes(), "fill: value has ", from.nbytes(), " bytes and message ", to.nbytes(),
              "; they must be equal");
  refuse_reads(to, false, 0);
  to.set_allocator(from.allocator());
  to.set_resizable(from.resizable());
  to.set_data_ptr_noswap(from.set_data_ptr(at::DataPtr(nullptr, to.device())));
}

// Switches the dispatch to message's Python class on or off. An armed tensor dispatches every operation to its class,
// and also queries of its device and strides, because code that reads the memory queries those first.
void arm(const at::Tensor& message, bool armed) {
  using Policy = c10::TensorImpl::SizesStridesPolicy;
  c10::TensorImpl* const impl = message.unsafeGetTensorImpl();
  impl->set_python_dispatch(armed);
  impl->set_python_custom_device(armed);
  impl->set_python_custom_sizes_strides(armed ? Policy::CustomStrides : Policy::Default);
}

// Returns x with its present values, which later writes to x do not change. Uses torch's copy-on-write, which copies
// only if somebody writes. Returns x itself if its memory cannot be shared that way, such as that of a NumPy array.
at::Tensor snapshot(const at::Tensor& x) {
  c10::StorageImpl& storage = storage_of(x);
  const bool shareable =
      c10::impl::cow::is_cow_data_ptr(storage.data_ptr()) || c10::impl::cow::has_simple_data_ptr(storage);
  return shareable ? at::_lazy_clone(x) : x;
}

struct Lift : torch::autograd::Function<Lift> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const MaybeTensor& weight,
                            const at::Tensor& src) {
    const at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["x_grad"] = wants_grad(x);
    ctx->saved_data["weight_grad"] = wants_grad(weight);
    ctx->saved_data["rows"] = x.sym_size(0);
    ctx->save_for_backward({src, weight.value_or(at::Tensor()), wants_grad(weight) ? x : at::Tensor()});
    return ops::lift(x, weight, src);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = saved_by(ctx);
    const at::Tensor &src = saved[0], &weight = saved[1], &x = saved[2], &grad = grads[0];
    if (!grad.defined()) return variable_list(3);
    at::Tensor grad_x, grad_weight;
    if (ctx->saved_data["x_grad"].toBool()) {
      const at::Tensor messages = weight.defined() ? grad * broadcast_to_messages(weight, grad.dim()) : grad;
      grad_x = ops::scatter_rows(messages, src, ctx->saved_data["rows"].toSymInt(), /*cache=*/true);
    }
    if (ctx->saved_data["weight_grad"].toBool())
      grad_weight = sum_to_weight(grad * x.index_select(0, src), weight.dim());
    return {grad_x, grad_weight, {}};
  }
};

at::Tensor lift(const at::Tensor& x, const MaybeTensor& weight, const at::Tensor& src) {
  if (c10::GradMode::is_enabled() && (wants_grad(x) || wants_grad(weight))) return Lift::apply(x, weight, src);
  const at::AutoDispatchBelowADInplaceOrView below;
  return ops::lift(x, weight, src);
}

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("fill", &fill);
  m.impl("arm", &arm);
  m.impl("snapshot", &snapshot);
}

TORCH_LIBRARY_IMPL(gnna, Python, m) {  // not dispatched to an armed tensor's class, which would fill the tensor first
  m.impl("fill", torch::CppFunction::makeFallthrough());
  m.impl("arm", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(gnna, CPU, m) { m.impl("lift", &lift_on_any); }

TORCH_LIBRARY_IMPL(gnna, CUDA, m) { m.impl("lift", &lift_on_any); }

TORCH_LIBRARY_IMPL(gnna, Autograd, m) { m.impl("lift", &lift); }

}  // namespace
}  // namespace gnna
