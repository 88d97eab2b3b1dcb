// pair_reduce: a function of both ends of every edge, reduced per row (row_task.cuh).
// Memory per edge: the column id, one piece of each given operand of the column and the edge, and the weight.
#include "gnna/pair_value.cuh"
#include "gnna/row_task.cuh"

namespace gnna::cuda {

namespace {

// kInFlight edges are loaded at a time.
template <typename T, int VW, typename Op, unsigned kGiven, bool kLight, int kInFlight>
struct PairTask {
  using C = Compute<T>;
  using Found = Pack<C, VW>;
  static constexpr int kPiece = VW, kBatch = kInFlight, kBlocks = 8;
  struct Args : PairArgs<T> {
    __host__ __device__ int64_t width() const { return this->heads * this->head_dim; }
  };

  const Args& args;
  int64_t row, column;
  Found of_row;

  __device__ __forceinline__ PairTask(const Args& a, int64_t r, int64_t c)
      : args(a), row(r), column(c), of_row(load_if_given<VW>(a.rows, r * a.width() + c)) {}

  __device__ __forceinline__ Found start() const {
    Found found;
#pragma unroll
    for (int i = 0; i < VW; ++i) found.v[i] = Op::template identity<C>();
    return found;
  }

  template <int N>
  __device__ __forceinline__ void add(Found& found, int64_t slot, int64_t stride) const {
    const CsrView& csr = args.csr;
    const int64_t width = args.width();
    const bool weighted = has<kGiven, kWeight>(args.weight);
    const bool by_edge = csr.perm != nullptr && (weighted || has<kGiven, kEdges>(args.edges));
    int64_t col[N], edge[N];
    int32_t position[N];
#pragma unroll
    for (int u = 0; u < N; ++u) {
      col[u] = __ldg(csr.col + slot + u * stride) * width + column;
      position[u] = by_edge ? __ldg(csr.perm + slot + u * stride) : static_cast<int32_t>(slot + u * stride);
      edge[u] = position[u] * width + column;
    }
    Found value[N];
    pair_values<kGiven, kLight>(args, of_row, row * width + column, col, edge, value);
#pragma unroll
    for (int u = 0; u < N; ++u) {
      if (weighted) weigh(args, position[u], column, value[u]);
      combine(found, value[u]);
    }
  }

  static __device__ __forceinline__ void combine(Found& found, const Found& other) {
#pragma unroll
    for (int i = 0; i < VW; ++i) found.v[i] = Op::combine(found.v[i], other.v[i]);
  }

  __device__ __forceinline__ void finish(const Found& found) const {
    Found result = found;
    if (args.left != nullptr) multiply(result, load_pack<VW>(args.left + row * args.left_stride + column));
    store_pack(args.out + row * args.width() + column, result);
  }
};

template <typename T, int VW, typename Op, unsigned kGiven, bool kLight>
cudaError_t launch_pair(const PairArgs<T>& args, const SplitRows& split_rows, void* scratch, cudaStream_t stream) {
  // As many edges as 64 registers hold without spilling.
  constexpr int in_flight = sizeof(T) == 2 || kGiven == kAny      ? 1
                            : kGiven == kCols || kGiven == kRight ? 4
                            : kGiven & kWeight                    ? 3
                                                                  : 2;
  using Task = PairTask<T, VW, Op, kGiven, kLight, in_flight>;
  return launch_task<T, Task>(typename Task::Args{args}, split_rows, scratch, stream);
}

// Operands that common layers have in their forward and backward passes get a kernel of their own.
template <typename T, typename Op>
cudaError_t reduce_with(const PairArgs<T>& args, const SplitRows& split_rows, void* scratch, cudaStream_t stream) {
  constexpr int VW = kVectorWidth<T>;
  const bool light = is_light(args.function);
  if (!can_vectorise(args, unit_of(args))) {
    return light ? launch_pair<T, 1, Op, kAny, true>(args, split_rows, scratch, stream)
                 : launch_pair<T, 1, Op, kAny, false>(args, split_rows, scratch, stream);
  }
  if (!light) return launch_pair<T, VW, Op, kAny, false>(args, split_rows, scratch, stream);
  const unsigned given = (args.cols ? kCols : 0) | (args.edges ? kEdges : 0) | (args.right ? kRight : 0) |
                         (args.weight ? kWeight : 0) | (args.best ? kBest : 0);
  if (given == kCols) return launch_pair<T, VW, Op, kCols, true>(args, split_rows, scratch, stream);
  if (given == (kCols | kEdges)) {
    return launch_pair<T, VW, Op, kCols | kEdges, true>(args, split_rows, scratch, stream);
  }
  if constexpr (std::is_same_v<Op, SumOp>) {
    if (given == kRight) return launch_pair<T, VW, Op, kRight, true>(args, split_rows, scratch, stream);
    if (given == (kCols | kBest)) return launch_pair<T, VW, Op, kCols | kBest, true>(args, split_rows, scratch, stream);
    if (given == (kCols | kRight | kBest)) {
      return launch_pair<T, VW, Op, kCols | kRight | kBest, true>(args, split_rows, scratch, stream);
    }
    if (given == (kCols | kWeight)) {
      return launch_pair<T, VW, Op, kCols | kWeight, true>(args, split_rows, scratch, stream);
    }
    if (given == (kCols | kRight)) {
      return launch_pair<T, VW, Op, kCols | kRight, true>(args, split_rows, scratch, stream);
    }
    if (given == (kEdges | kRight)) {
      return launch_pair<T, VW, Op, kEdges | kRight, true>(args, split_rows, scratch, stream);
    }
  }
  return launch_pair<T, VW, Op, kAny, true>(args, split_rows, scratch, stream);
}

}  // namespace

template <typename T>
cudaError_t pair_reduce(const PairArgs<T>& args, const SplitRows& split_rows, void* scratch, cudaStream_t stream) {
  if (!is_valid(args)) return cudaErrorInvalidValue;
  switch (args.reduce) {
    case Reduce::Sum:
      return reduce_with<T, SumOp>(args, split_rows, scratch, stream);
    case Reduce::Max:
      return reduce_with<T, MaxOp>(args, split_rows, scratch, stream);
    case Reduce::Min:
      return reduce_with<T, MinOp>(args, split_rows, scratch, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

#define GNNA_INSTANTIATE(T) template cudaError_t pair_reduce(const PairArgs<T>&, const SplitRows&, void*, cudaStream_t)
GNNA_FOR_EACH_TYPE(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
