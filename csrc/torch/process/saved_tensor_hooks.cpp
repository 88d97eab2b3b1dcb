// The op saved_tensor_hooks: whether hooks for tensors saved for backward, such as those of activation checkpointing,
// are active on this thread. gnna_plugin/surroundings.py uses torch's cheaper Python function instead, if torch has it.
#include <ATen/SavedTensorHooks.h>
#include <torch/library.h>

namespace gnna {
namespace {

bool saved_tensor_hooks() { return !at::SavedTensorDefaultHooks::get_tls_state().stack.empty(); }

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) { m.impl("saved_tensor_hooks", &saved_tensor_hooks); }

}  // namespace
}  // namespace gnna
