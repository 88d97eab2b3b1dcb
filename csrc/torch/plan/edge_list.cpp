// Edge lists of matrices that the user has in CSR form. The ops take edges (src, dst), so a CSR form is expanded to an
// edge list once. The CSR form itself becomes the cached plan of that list, which saves the sort. Both are kept while
// the tensors of the CSR form live. An edge list takes 16 bytes per edge in int64 and 8 in int32.
#include "plan/edge_list.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/repeat_interleave.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <limits>
#include <vector>

#include "common/streams.h"
#include "plan/builder.h"
#include "plan/cache.h"
#include "plan/captures.h"
#include "plan/recall.h"

namespace gnna {
namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

struct Form {
  at::Tensor row_ids, col_ids;
};

Recall<Form>& forms() {
  // Never destroyed, because CUDA shuts down before static destructors run.
  static auto* const made = new Recall<Form>{int64_t{4} << 30, std::numeric_limits<size_t>::max()};
  return *made;
}

std::optional<Form> find(const RecallKey& key, at::ArrayRef<at::Tensor> tensors, bool capturing) {
  Prints prints;
  Form form;
  {
    const Lock lock(recall_mutex());
    auto* const node = forms().find(key);
    if (node == nullptr) return std::nullopt;
    form = node->value;
    if (capturing) hold_for_captures({form.row_ids, form.col_ids});
    prints = node->prints;
  }
  if (unchanged(prints, tensors)) return form;
  const Lock lock(recall_mutex());
  forms().erase_all_of(key);
  return std::nullopt;
}

void keep(const RecallKey& key, at::ArrayRef<at::Tensor> tensors, Form form) {
  Prints prints = fingerprints(key, tensors);
  const auto bytes = static_cast<int64_t>(form.row_ids.nbytes() + form.col_ids.nbytes());
  const Lock lock(recall_mutex());
  if (auto* const there = forms().peek(key)) forms().erase(*there);
  forms().insert(key, std::move(form), bytes, std::move(prints));
}

int64_t first_of(const at::Tensor& wrong) { return at::nonzero(wrong.view({-1}))[0][0].item<int64_t>(); }

void check_form(const at::Tensor& rowptr, const at::Tensor& col, const std::optional<at::Tensor>& perm, int64_t cols) {
  const auto integral = [&](const at::Tensor& t) {
    return (t.scalar_type() == at::kInt || t.scalar_type() == at::kLong) && t.dim() == 1;
  };
  TORCH_CHECK_TYPE(integral(rowptr) && integral(col) && rowptr.scalar_type() == col.scalar_type(),
                   "rowptr and col are ", rowptr.scalar_type(), " ", rowptr.sizes(), " and ", col.scalar_type(), " ",
                   col.sizes(), "; both must be one-dimensional and of the same dtype, int32 or int64");
  TORCH_CHECK_VALUE(rowptr.device() == col.device(), "rowptr is on ", rowptr.device(), " and col on ", col.device(),
                    "; both must be on the same device");
  TORCH_CHECK_VALUE(rowptr.numel() > 0, "rowptr is empty; it must have one element more than there are rows");
  const int64_t first = rowptr[0].item<int64_t>(), last = rowptr[-1].item<int64_t>();
  TORCH_CHECK_VALUE(first == 0 && last == col.numel(), "rowptr runs from ", first, " to ", last, " with ", col.numel(),
                    " column ids; it must run from 0 to the number of column ids");
  const at::Tensor falls = rowptr.diff().lt(0);
  if (falls.any().item<bool>()) {
    TORCH_CHECK_VALUE(false, "rowptr falls after position ", first_of(falls), "; it must not decrease");
  }
  const at::Tensor outside = col.lt(0).logical_or(col.ge(cols));
  if (outside.any().item<bool>()) {
    const int64_t at = first_of(outside);
    throw_bad_index("col", at, col[at].item<int64_t>(), cols);
  }
  if (!perm) return;
  TORCH_CHECK_TYPE(integral(*perm), "perm is ", perm->scalar_type(), " ", perm->sizes(),
                   "; it must be one-dimensional int32 or int64");
  TORCH_CHECK_VALUE(perm->numel() == col.numel() && perm->device() == col.device(), "perm has ", perm->numel(),
                    " elements on ", perm->device(), " for ", col.numel(), " edges on ", col.device(),
                    "; it must have one element per edge, on the device of the edges");
  const bool inside = perm->numel() == 0 || !perm->lt(0).logical_or(perm->ge(col.numel())).any().item<bool>();
  TORCH_CHECK_VALUE(inside && !at::bincount(*perm, {}, col.numel()).ne(1).any().item<bool>(),
                    "perm is not a permutation of the ", col.numel(),
                    " edges; it must contain every edge position once");
}

std::shared_ptr<Plan> plan_of(const at::Tensor& rowptr, const at::Tensor& col, const std::optional<at::Tensor>& perm,
                              int64_t cols) {
  auto plan = std::make_shared<Plan>();
  plan->rows = rowptr.numel() - 1;
  plan->cols = cols;
  plan->edges = col.numel();
  plan->rowptr = rowptr.to(at::kLong).contiguous().clone();
  plan->col = col.to(at::kInt).contiguous().clone();
  if (perm) plan->perm = perm->to(at::kInt).contiguous().clone();
  plan->stream_id = current_stream_id(col.device());
  // Last, because item() waits for the stream. The lists above are then complete for every stream.
  plan->max_degree = plan->rows > 0 ? rowptr.diff().max().item<int64_t>() : 0;
  return plan;
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> edges_of_csr(const at::Tensor& rowptr, const at::Tensor& col,
                                                const std::optional<at::Tensor>& perm, int64_t cols, bool cache) {
  const c10::OptionalDeviceGuard guard(col.device());
  c10::SmallVector<at::Tensor, 3> tensors{rowptr, col};
  if (perm) tensors.push_back(*perm);
  const auto key = cache ? recall_key(tensors, {cols, 0}) : std::nullopt;
  if (key) {
    if (const auto form = find(*key, tensors, capturing_on(col.device()))) {
      for (const at::Tensor* t : {&form->row_ids, &form->col_ids}) record_use(*t);
      return {form->row_ids, form->col_ids};
    }
  }
  check_not_capturing(col.device());
  check_form(rowptr, col, perm, cols);
  const c10::InferenceMode normal(false);
  const int64_t rows = rowptr.numel() - 1;
  const at::Tensor ids = at::arange(rows, col.options());
  const at::Tensor row_of_slot = at::repeat_interleave(ids, rowptr.diff().to(at::kLong), 0, col.numel());
  at::Tensor row_ids = row_of_slot, col_ids = col.clone();
  if (perm) {
    const at::Tensor at = perm->to(at::kLong);
    row_ids = at::empty_like(row_of_slot).index_copy_(0, at, row_of_slot);
    col_ids = at::empty_like(row_of_slot).index_copy_(0, at, col);
  }
  if (key) {
    adopt_plan(row_ids, col_ids, plan_of(rowptr, col, perm, cols));
    keep(*key, tensors, {row_ids, col_ids});
  }
  return {row_ids, col_ids};
}

void set_max_csr_form_bytes(int64_t bytes) {
  const Lock lock(recall_mutex());
  forms().set_max_bytes(bytes);
}

void clear_csr_forms() {
  const Lock lock(recall_mutex());
  forms().clear();
}

namespace {

TORCH_LIBRARY_IMPL(gnna, CPU, m) { m.impl("edges_of_csr", &edges_of_csr); }
TORCH_LIBRARY_IMPL(gnna, CUDA, m) { m.impl("edges_of_csr", &edges_of_csr); }
// The results are integers, so there is nothing to differentiate.
TORCH_LIBRARY_IMPL(gnna, Autograd, m) { m.impl("edges_of_csr", torch::CppFunction::makeFallthrough()); }

}  // namespace
}  // namespace gnna
