// What captured CUDA graphs read of the plug-in's memory: plans, their rows dealt out, normalised weights, edges of CSR
// forms. A graph holds raw addresses, may be replayed for as long as the process lives, and does not tell when it ends.
// So the memory is held until somebody who knows says release_captures().
#pragma once

#include <ATen/core/Tensor.h>

namespace gnna {

// Holds the memory of these tensors, each once; undefined ones are left out.
void hold_for_captures(at::ArrayRef<at::Tensor> tensors);

bool is_held_for_captures(const at::Tensor& tensor);

}  // namespace gnna
