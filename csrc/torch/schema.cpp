// The ops of gnna_plugin, by schema, and the ones that need no device: the cache and the decider.
//
// An edge e carries x[src[e]] to row dst[e]. cache = false keeps no plan (see plan.h).
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>
#include <torch/version.h>

#include <string>
#include <vector>

#include "arguments.h"
#include "gnna/cpu_api.h"
#include "gnna/decide.h"
#include "manual.h"
#include "plan.h"

namespace gnna {
namespace {

// A CUDA graph that torch.compile records by itself would meet plans that are yet to be built; it must cut there.
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 11
const std::vector<at::Tag> kNotCaptured{at::Tag::cudagraph_unsafe};
#else
const std::vector<at::Tag> kNotCaptured;
#endif

std::vector<int64_t> cache_info_op() {
  const CacheInfo info = cache_info();
  return {info.plans, info.bytes, info.hits, info.misses, info.max_bytes};
}

// kernel, lanes, groups, ngs, vector_width, vectors, block, long_row, item_edges, as manual_of reads them and the
// launches use them; the reason, and the runner-up.
std::tuple<std::vector<int64_t>, std::string, std::string> decide_op(int64_t rows, int64_t cols, int64_t edges,
                                                                     int64_t max_degree, int64_t width,
                                                                     int64_t head_dim, int64_t itemsize, bool weighted,
                                                                     bool aligned, const std::string& reduce, bool cuda,
                                                                     int64_t processors, int64_t l2_bytes,
                                                                     int64_t bandwidth, at::IntArrayRef manual) {
  const Decision decision =
      decide({rows, cols, edges, max_degree}, {width, head_dim, itemsize, weighted, aligned, parse_reduce(reduce)},
             {cuda, processors, l2_bytes, bandwidth}, manual_of(manual));
  const KernelConfig& c = decision.config;
  return {{static_cast<int64_t>(c.kernel), c.lanes, c.groups, c.ngs, c.vector_width, c.vectors, c.block, c.long_row,
           c.item_edges},
          decision.reason,
          decision.runner_up};
}

std::string instruction_set_op() { return cpu::instruction_set(); }

// max_degree of a plan that is in use, for whoever explains a decision.
int64_t max_degree_op(const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst) {
  const c10::OptionalDeviceGuard guard(src.device());
  return plan_for(dst, src, num_dst, num_src, "dst", "src", true, /*edge_ids=*/false)->max_degree;
}

}  // namespace

TORCH_LIBRARY(gnna, m) {
  m.def("spmm(Tensor x, Tensor? weight, Tensor src, Tensor dst, SymInt num_dst, str reduce, bool cache=True) -> Tensor",
        kNotCaptured);
  // Max and min with the source and the edge that won each element, by DGL's rules: -inf (min: +inf) and 0, 0 if
  // nothing won. NaN never wins. Of equals the first edge wins, with `last` (CPU only) the last edge, which then may
  // also equal the start value. Not differentiable: callers scatter to the winners.
  m.def(
      "spmm_arg(Tensor x, Tensor? weight, Tensor src, Tensor dst, SymInt num_dst, str reduce, bool cache=True, "
      "bool last=False) -> (Tensor out, Tensor arg_src, Tensor arg_edge)",
      kNotCaptured);
  m.def("sddmm(Tensor a, Tensor b, Tensor src, Tensor dst, int head_dims=0, bool cache=True) -> Tensor", kNotCaptured);
  // Gradients of spmm's max and min to x and, where with_weight, to the weight (else empty).
  m.def(
      "extremum_backward(Tensor grad, Tensor x, Tensor? weight, Tensor out, Tensor src, Tensor dst, bool with_weight, "
      "bool cache=True) -> (Tensor, Tensor)",
      kNotCaptured);
  // Reduces messages [E, *S] over equal index, [num_rows, *S]: the half of an aggregation that is left when the
  // messages exist already. Deterministic, unlike a scatter on a GPU; a sorted index costs no permutation.
  m.def("segment_reduce(Tensor messages, Tensor index, SymInt num_rows, str reduce, bool cache=True) -> Tensor",
        kNotCaptured);
  // x[index], and its adjoint: messages [E, *S] summed over equal index, [num_rows, *S]. Where the same index comes
  // again they go by its plan (gather.h), several times faster than torch's on a GPU, and deterministic; before they
  // are torch's.
  m.def("gather_rows(Tensor x, Tensor index, bool cache=True) -> Tensor", kNotCaptured);
  m.def("scatter_rows(Tensor messages, Tensor index, SymInt num_rows, bool cache=True) -> Tensor", kNotCaptured);
  // Softmax of scores [E, *S] over equal index, per element of S: attention normalised over the edges of a node.
  m.def("segment_softmax(Tensor scores, Tensor index, SymInt num_rows, bool cache=True) -> Tensor", kNotCaptured);
  // Its gradient to the scores, from its result.
  m.def("segment_softmax_backward(Tensor grad, Tensor out, Tensor index, SymInt num_rows, bool cache=True) -> Tensor",
        kNotCaptured);
  // max(in-degree, 1) of every destination, in the dtype that `like` is computed in: what a mean divides by. src only
  // finds the plan; without it the plan is segment_reduce's.
  m.def("mean_divisor(Tensor like, Tensor? src, Tensor dst, SymInt num_src, SymInt num_dst, bool cache=True) -> Tensor",
        kNotCaptured);
  // Row and column ids of every edge of a matrix in CSR form, as the other ops take them, with its plan entered for
  // them (csr_form.h).
  m.def("edges_of_csr(Tensor rowptr, Tensor col, Tensor? perm, SymInt num_cols, bool cache=True) -> (Tensor, Tensor)",
        kNotCaptured);
  // A stand-in for the messages weight * x[src] that holds no memory: shape and gradient are right (any_device.cpp).
  m.def("lift(Tensor x, Tensor? weight, Tensor src) -> Tensor");

  // Says that nobody writes to this tensor (identity.h).
  m.def("mark_constant(Tensor tensor) -> ()", &mark_constant);
  m.def("cache_info() -> int[]", &cache_info_op);
  m.def("clear_cache() -> ()", &clear_cache);
  m.def("set_max_plan_bytes(int bytes) -> ()", &set_max_plan_bytes);
  m.def("max_degree(Tensor src, Tensor dst, int num_src, int num_dst) -> int", &max_degree_op);
  m.def(
      "decide(int rows, int cols, int edges, int max_degree, int width, int head_dim, int itemsize, bool weighted, "
      "bool "
      "aligned, str reduce, bool cuda, int processors, int l2_bytes, int bandwidth, int[] manual) -> (int[], str, str)",
      &decide_op);
  m.def("set_manual(int[] parameters) -> ()", &set_manual);
  m.def("set_tuned(int[] facts, int[] parameters) -> ()", &set_tuned);
  m.def("clear_tuned() -> ()", &clear_tuned);
  m.def("instruction_set() -> str", &instruction_set_op);
}

}  // namespace gnna
