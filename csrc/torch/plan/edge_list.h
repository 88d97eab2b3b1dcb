// CSR forms as edge lists (edge_list.cpp).
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <tuple>

namespace gnna {

// Row and column ids of every edge, in the user's order of edges, of a matrix of `cols` columns in CSR form: rowptr
// [rows + 1], col [edges], perm [edges] from the place in col to the position among the user's edges (none: the same).
// Raises ValueError for what is no CSR form, RuntimeError while a CUDA graph is captured unless it was seen before.
std::tuple<at::Tensor, at::Tensor> edges_of_csr(const at::Tensor& rowptr, const at::Tensor& col,
                                                const std::optional<at::Tensor>& perm, int64_t cols, bool cache);

void clear_csr_forms();

}  // namespace gnna
