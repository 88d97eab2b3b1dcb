// Expands matrices in CSR form to edge lists and caches both.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace gnna {

// Returns the row and column ids of every edge of a matrix in CSR form, in the user's order of edges.
//   rowptr [rows + 1], col [edges]: int32 or int64, both of the same dtype.
//   perm [edges]: position of edge col[k] in the user's order; nullopt means k.
//   cols: number of columns of the matrix.
//   cache: keep the edge list and its plan while the tensors of the CSR form live.
// Raises TypeError for a wrong dtype or number of dimensions, ValueError if the tensors are not a CSR form, and
// RuntimeError if the form is not cached while a CUDA graph is captured.
std::tuple<at::Tensor, at::Tensor> edges_of_csr(const at::Tensor& rowptr, const at::Tensor& col,
                                                const std::optional<at::Tensor>& perm, int64_t cols, bool cache);

void clear_csr_forms();

// Bounds the cached forms, whose default is that of the plans.
void set_max_csr_form_bytes(int64_t bytes);

}  // namespace gnna
