// pair_reduce: a function of both ends of every edge, reduced per row (row_task.cuh).
// Memory per edge: the column id, one piece of each given operand of the column and the edge, and the weight.
#include "gnna/pair_value.cuh"
#include "gnna/row_task.cuh"

namespace gnna::cuda {

namespace {

template <typename T, int VW, typename Op>
struct PairTask {
  using C = Compute<T>;
  using Found = Pack<C, VW>;
  static constexpr int kPiece = VW, kBlocks = 8;
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

  __device__ __forceinline__ void add(Found& found, int64_t slot) const {
    const CsrView& csr = args.csr;
    const int64_t width = args.width(), col = __ldg(csr.col + slot);
    const bool by_edge = args.edges != nullptr || args.weight != nullptr;
    const int64_t edge = by_edge && csr.perm != nullptr ? __ldg(csr.perm + slot) : slot;
    Found value = pair_value<VW>(args, of_row, row * width + column, col * width + column, edge * width + column);
    weigh(args, edge, column, value);
    combine(found, value);
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

template <typename T, typename Op>
cudaError_t reduce_with(const PairArgs<T>& given, const SplitRows& split_rows, void* scratch, cudaStream_t stream) {
  if (can_vectorise(given, unit_of(given))) {
    using Task = PairTask<T, kVectorWidth<T>, Op>;
    return launch_task<T, Task>(typename Task::Args{given}, split_rows, scratch, stream);
  }
  using Task = PairTask<T, 1, Op>;
  return launch_task<T, Task>(typename Task::Args{given}, split_rows, scratch, stream);
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
