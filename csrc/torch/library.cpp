// Every op of gnna_plugin, by schema. Its file in ops/, plan/ or process/ gives it a body and a derivative, device/ its
// kernels.
//
// An edge e carries x[src[e]] to row dst[e]. cache = false keeps no plan (plan/plan.h).
#include <torch/library.h>
#include <torch/version.h>

#include <vector>

namespace gnna {
namespace {

// A CUDA graph that torch.compile records by itself would meet plans that are yet to be built; it must cut there.
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 11
const std::vector<at::Tag> kNotCaptured{at::Tag::cudagraph_unsafe};
#else
const std::vector<at::Tag> kNotCaptured;
#endif

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
  // again they go by its plan (ops/gather.h), several times faster than torch's on a GPU, and deterministic; before
  // they are torch's.
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
  // them (plan/edge_list.h).
  m.def("edges_of_csr(Tensor rowptr, Tensor col, Tensor? perm, SymInt num_cols, bool cache=True) -> (Tensor, Tensor)",
        kNotCaptured);
  // A stand-in for the messages weight * x[src] that holds no memory: shape and gradient are right (ops/lift.cpp).
  m.def("lift(Tensor x, Tensor? weight, Tensor src) -> Tensor");
  // Gives it its messages; value is a temporary. armed: operations on it go to its Python class first. x as it is now,
  // whatever is written to it later.
  m.def("fill(Tensor message, Tensor value) -> ()");
  m.def("arm(Tensor message, bool armed) -> ()");
  m.def("snapshot(Tensor x) -> Tensor");

  // What layers compute from the edges alone, on the CPU (ops/self_loops.cpp).
  m.def("without_self_loops(Tensor edge_index) -> Tensor");
  m.def("with_self_loops(Tensor edge_index, int num_nodes) -> Tensor");
  m.def(
      "with_remaining_self_loops(Tensor edge_index, Tensor? edge_weight, int num_nodes, float fill) -> "
      "(Tensor edge_index, Tensor edge_weight)");
  m.def(
      "gcn_weights(Tensor edge_index, Tensor? edge_weight, int num_nodes, bool by_source, ScalarType dtype) -> Tensor");

  // Place -> node of Rabbit order, and each node's community; int32 [num_nodes]. degree_order: in-degrees, descending.
  m.def("rabbit_order(Tensor src, Tensor dst, int num_nodes) -> (Tensor order, Tensor community)");
  m.def("degree_order(Tensor src, Tensor dst, int num_nodes) -> Tensor");
  m.def("community_order(Tensor src, Tensor dst, int num_src, int num_dst) -> Tensor");
  m.def("cold_gathers(Tensor src, Tensor dst, int num_src, int num_dst, Tensor? order, int capacity) -> float");
  m.def("schedules() -> (str[], float[])");
  m.def("set_auto_schedule(bool on) -> ()");
  m.def("set_schedule(Tensor src, Tensor dst, int num_src, int num_dst, Tensor? order) -> bool");
  // Kind, gain, cost in seconds, whether it repays by now, reason: what a plan with these calls behind it would be
  // told.
  m.def(
      "choose_schedule(int rows, int cols, int edges, int max_degree, bool cuda, int processors, int l2_bytes, int "
      "row_bytes, int calls, float seconds) -> (str, float, float, bool, str)");

  // What was computed from tensors, found again by their identity (plan/memo.h), and whether a small list comes often.
  m.def("recall(str name, Tensor[] inputs) -> (Tensor[] results, str form)");
  m.def("remember(str name, Tensor[] inputs, Tensor[] results, str form) -> Tensor[]");
  m.def("is_repeated(Tensor list) -> bool");
  m.def("set_repeated(Tensor list) -> ()");

  // Says that nobody writes to this tensor (plan/identity.h).
  m.def("mark_constant(Tensor tensor) -> ()");
  m.def("has_plans(Tensor src, bool transposed) -> bool");  // plan/plan.h
  m.def("cache_info() -> int[]");
  m.def("clear_cache() -> ()");
  // Buffers and bytes that captured CUDA graphs keep alive, and their end (plan/captures.h).
  m.def("captures() -> int[]");
  m.def("release_captures() -> ()");
  m.def("set_max_plan_bytes(int bytes) -> ()");
  m.def("max_degree(Tensor src, Tensor dst, int num_src, int num_dst) -> int");
  m.def(
      "decide(int rows, int cols, int edges, int max_degree, int width, int head_dim, int itemsize, bool weighted, "
      "bool aligned, str reduce, bool cuda, int processors, int l2_bytes, int bandwidth, int[] manual) -> (int[], str, "
      "str)");
  m.def("set_manual(int[] parameters) -> ()");
  m.def("set_tuned(int[] facts, int[] parameters) -> ()");
  m.def("clear_tuned() -> ()");
  m.def("instruction_set() -> str");
  m.def("l2_bytes(Device device) -> int");
  m.def("memory_bandwidth(Device device) -> int");

  // The process: freed CPU memory kept for reuse (process/kept_memory.cpp), and autograd's hooks on this thread.
  m.def("keep_freed_memory() -> bool");
  m.def("return_freed_memory() -> ()");
  m.def("kept_bytes() -> int");
  m.def("saved_tensor_hooks() -> bool");
}

}  // namespace gnna
