// Whether tensors saved for a backward pass go through hooks on this thread, as activation checkpointing has it. Newer
// releases of torch tell so in Python, where it is cheaper to ask; see gnna_plugin/surroundings.py.
#include <ATen/SavedTensorHooks.h>
#include <torch/library.h>

namespace gnna {
namespace {

bool saved_tensor_hooks() { return !at::SavedTensorDefaultHooks::get_tls_state().stack.empty(); }

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) { m.impl("saved_tensor_hooks", &saved_tensor_hooks); }

}  // namespace
}  // namespace gnna
