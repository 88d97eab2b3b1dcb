// The schemas of all ops. Their bodies and derivatives are in ops/, plan/ and process/, the calls of kernels in
// device/.
//
// Edge e carries x[src[e]] to row dst[e]. With cache = false an op builds its plan anew and does not keep it
// (plan/cache.h).
#include <torch/library.h>
#include <torch/version.h>

#include <vector>

namespace gnna {
namespace {

// Makes torch.compile keep an op out of the CUDA graphs that it records on its own, because a plan cannot be built
// during capture.
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 11
const std::vector<at::Tag> kNotCaptured{at::Tag::cudagraph_unsafe};
#else
const std::vector<at::Tag> kNotCaptured;
#endif

}  // namespace

TORCH_LIBRARY(gnna, m) {
  m.def("spmm(Tensor x, Tensor? weight, Tensor src, Tensor dst, SymInt num_dst, str reduce, bool cache=True) -> Tensor",
        kNotCaptured);
  // Max or min by DGL's rules, with the source and the edge that won each element. If no edge wins, out is -inf for max
  // or +inf for min, and arg_src and arg_edge are 0. NaN never wins. The first of equal edges wins. With `last` (CPU
  // only) the last one wins, and a message that equals the infinity above wins as well. Not differentiable: callers
  // scatter gradients to the winners.
  m.def(
      "spmm_arg(Tensor x, Tensor? weight, Tensor src, Tensor dst, SymInt num_dst, str reduce, bool cache=True, "
      "bool last=False) -> (Tensor out, Tensor arg_src, Tensor arg_edge)",
      kNotCaptured);
  m.def("sddmm(Tensor a, Tensor b, Tensor src, Tensor dst, int head_dims=0, bool cache=True) -> Tensor", kNotCaptured);
  // Gradients of spmm's max and min with respect to x and the weight. The second is empty unless with_weight.
  m.def(
      "extremum_backward(Tensor grad, Tensor x, Tensor? weight, Tensor out, Tensor src, Tensor dst, bool with_weight, "
      "bool cache=True) -> (Tensor, Tensor)",
      kNotCaptured);
  // Reduces messages [E, *S] with equal index to [num_rows, *S], for messages that exist as a tensor. Deterministic,
  // unlike a scatter on a GPU.
  m.def("segment_reduce(Tensor messages, Tensor index, SymInt num_rows, str reduce, bool cache=True) -> Tensor",
        kNotCaptured);
  // Gradient of segment_reduce's max and min, whose results are `best`.
  m.def("segment_extremum_backward(Tensor grad, Tensor messages, Tensor best, Tensor index, bool cache=True) -> Tensor",
        kNotCaptured);
  // x[index] and its adjoint, which sums messages [E, *S] with equal index to [num_rows, *S]. If an index is used again
  // they use its plan (ops/gather.h), which on a GPU is faster than torch and deterministic. Otherwise they run torch's
  // index_select and index_add_.
  m.def("gather_rows(Tensor x, Tensor index, bool cache=True) -> Tensor", kNotCaptured);
  m.def("scatter_rows(Tensor messages, Tensor index, SymInt num_rows, bool cache=True) -> Tensor", kNotCaptured);
  // Softmax of scores [E, *S] over the edges with equal index, for each element of S on its own.
  m.def("segment_softmax(Tensor scores, Tensor index, SymInt num_rows, bool cache=True) -> Tensor", kNotCaptured);
  // Gradient of segment_softmax with respect to the scores, computed from its result `out`.
  m.def("segment_softmax_backward(Tensor grad, Tensor out, Tensor index, SymInt num_rows, bool cache=True) -> Tensor",
        kNotCaptured);
  // A function of the features of both ends of every edge, reduced per row, summed per edge and head, or stored; see
  // PairArgs in gnna/types.h. For an edge e, weight[e] * left[dst[e]] * right[src[e]] multiplies the order-th
  // derivative of the function at rows[dst[e]] + cols[src[e]] + edges[e]. rows and left are [num_dst, *S] (left may be
  // [1, *S]), cols and right [num_src, *S], edges [E, *S]; weight [E, *W] as in spmm. max and min take rows, cols and
  // edges only.
  m.def(
      "pair_reduce(Tensor? rows, Tensor? cols, Tensor? edges, Tensor? weight, Tensor? left, Tensor? right, Tensor src, "
      "Tensor dst, SymInt num_src, SymInt num_dst, str function, float parameter, int order, str reduce, "
      "bool cache=True) -> Tensor",
      kNotCaptured);
  m.def(
      "pair_dot(Tensor? rows, Tensor? cols, Tensor? edges, Tensor? left, Tensor? right, Tensor src, Tensor dst, "
      "SymInt num_src, SymInt num_dst, str function, float parameter, int order, int head_dims, bool cache=True) -> "
      "Tensor",
      kNotCaptured);
  m.def(
      "pair_map(Tensor? rows, Tensor? cols, Tensor? edges, Tensor? weight, Tensor? left, Tensor? right, Tensor src, "
      "Tensor dst, SymInt num_src, SymInt num_dst, str function, float parameter, int order, bool cache=True) -> "
      "Tensor",
      kNotCaptured);
  // Gradients of pair_reduce's max and min, of result `best`, with respect to rows, cols and edges. Undefined for
  // absent operands.
  m.def(
      "pair_extremum_backward(Tensor grad, Tensor best, Tensor? rows, Tensor? cols, Tensor? edges, Tensor src, "
      "Tensor dst, SymInt num_src, SymInt num_dst, str function, float parameter, bool cache=True) -> "
      "(Tensor, Tensor, Tensor)",
      kNotCaptured);
  // The divisor of a mean: max(in-degree, 1) of every destination, in the dtype in which kernels compute on `like`. src
  // and num_src only identify spmm's plan. Without src the plan of segment_reduce is used.
  m.def("mean_divisor(Tensor like, Tensor? src, Tensor dst, SymInt num_src, SymInt num_dst, bool cache=True) -> Tensor",
        kNotCaptured);
  // Row and column ids of every edge of a CSR matrix, for use as dst and src of the other ops. The plan of these edges
  // enters the cache (plan/edge_list.h).
  m.def("edges_of_csr(Tensor rowptr, Tensor col, Tensor? perm, SymInt num_cols, bool cache=True) -> (Tensor, Tensor)",
        kNotCaptured);
  // A placeholder for the messages weight * x[src], with their shape and gradient but without memory (ops/lift.cpp).
  m.def("lift(Tensor x, Tensor? weight, Tensor src) -> Tensor");
  // fill moves the memory of value, a temporary, into the placeholder. arm switches the dispatch of operations to the
  // placeholder's Python class on or off. snapshot returns x with its present values, which later writes to x do not
  // change.
  m.def("fill(Tensor message, Tensor value) -> ()");
  m.def("arm(Tensor message, bool armed) -> ()");
  m.def("snapshot(Tensor x) -> Tensor");

  // Edge lists and weights that layers derive from the edges alone; CPU only (ops/self_loops.cpp).
  m.def("without_self_loops(Tensor edge_index) -> Tensor");
  m.def("with_self_loops(Tensor edge_index, int num_nodes) -> Tensor");
  m.def(
      "with_remaining_self_loops(Tensor edge_index, Tensor? edge_weight, int num_nodes, float fill) -> "
      "(Tensor edge_index, Tensor edge_weight)");
  m.def(
      "gcn_weights(Tensor edge_index, Tensor? edge_weight, int num_nodes, bool by_source, ScalarType dtype) -> Tensor");

  // Orders, int32, of edges on the CPU (ops/orders.cpp): order[place] is the node or row processed at that place.
  // rabbit_order also returns each node's community. degree_order is by descending in-degree. cold_gathers returns the
  // share of gathers that miss a cache of `capacity` feature rows.
  m.def("rabbit_order(Tensor src, Tensor dst, int num_nodes) -> (Tensor order, Tensor community)");
  m.def("degree_order(Tensor src, Tensor dst, int num_nodes) -> Tensor");
  m.def("community_order(Tensor src, Tensor dst, int num_src, int num_dst) -> Tensor");
  m.def("cold_gathers(Tensor src, Tensor dst, int num_src, int num_dst, Tensor? order, int capacity) -> float");
  // Schedules of cached plans: listed, switched on or off as a whole, and set for one plan.
  m.def("schedules() -> (str[], float[])");
  m.def("set_auto_schedule(bool on) -> ()");
  m.def("set_schedule(Tensor src, Tensor dst, int num_src, int num_dst, Tensor? order) -> bool");
  // The schedule that the decider would choose for a plan after this many calls: kind, gain (expected time before /
  // time after), cost in seconds, whether that cost would have been saved by now, reason.
  m.def(
      "choose_schedule(int rows, int cols, int edges, int max_degree, bool cuda, int processors, int l2_bytes, int "
      "row_bytes, int calls, float seconds) -> (str, float, float, bool, str)");

  // Results stored under a name and the identity of their inputs (plan/memo.h), handed out as copies or, to callers
  // that never write to them, shared. is_repeated: whether an edge list was used often enough to store anything for it.
  m.def("recall(str name, Tensor[] inputs) -> (Tensor[] results, str form)");
  m.def("remember(str name, Tensor[] inputs, Tensor[] results, str form, bool shared=False) -> Tensor[]");
  m.def("is_repeated(Tensor list) -> bool");
  m.def("set_repeated(Tensor list) -> ()");

  // The caller promises that nobody writes to this tensor (plan/identity.h).
  m.def("mark_constant(Tensor tensor) -> ()");
  // Whether a captured CUDA graph can use the plans of these indices (plan/cache.h).
  m.def("has_plans(Tensor src, bool transposed) -> bool");
  m.def("has_segments(Tensor index, int num_rows) -> bool");
  // Whether a replayed CUDA graph found that its edges had changed since it was captured (plan/fingerprint.h).
  m.def("changed_before_replay() -> bool");
  m.def("cache_info() -> int[]");
  m.def("clear_cache() -> ()");
  // Number and bytes of the buffers that are held for captured CUDA graphs, and their release (plan/captures.h).
  m.def("captures() -> int[]");
  m.def("release_captures() -> ()");
  m.def("set_max_plan_bytes(int bytes) -> ()");
  m.def("max_degree(Tensor src, Tensor dst, int num_src, int num_dst) -> int");

  // The decider (gnna/decide.h): lists of integers are the to_vector() of its structs.
  // decide: without overrides, with those in force.
  m.def("decide(int[] facts, int[] device, int[]? overrides) -> int[]");
  m.def("last_decision() -> int[]");  // of this thread's launches; empty if there was none
  m.def("reason(int[] decision) -> str");
  m.def("runner_up(int[] decision) -> str");
  m.def("set_overrides(int[] overrides) -> ()");
  m.def("set_tuned(int[] facts, int[] overrides) -> ()");
  m.def("clear_tuned() -> ()");
  m.def("device_facts(Device device) -> int[]");
  m.def("instruction_set() -> str");

  // State of the process and thread (process/): freed CPU memory kept for reuse, and whether this thread has hooks for
  // tensors that autograd saves.
  m.def("keep_freed_memory() -> bool");
  m.def("return_freed_memory() -> ()");
  m.def("kept_bytes() -> int");
  m.def("saved_tensor_hooks() -> bool");
}

}  // namespace gnna
