// The plug-in's memory that captured CUDA graphs read: plans, their partitions, normalised weights, and edge lists of
// CSR forms. A graph holds raw addresses, may be replayed until the process ends, and gives no notice when it is
// destroyed. The memory is therefore held until the user calls release_captures().
#pragma once

#include <ATen/core/Tensor.h>

namespace gnna {

// Holds the storages of these tensors, each once. Skips undefined tensors.
void hold_for_captures(at::ArrayRef<at::Tensor> tensors);

bool is_held_for_captures(const at::Tensor& tensor);

}  // namespace gnna
