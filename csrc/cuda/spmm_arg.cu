// Max and min with the winning edge, by DGL's rules: a row starts at -inf (+inf for min) and only a strictly better
// message wins. NaN therefore never wins, and the first of equal messages in the row does. Implemented as a row task
// (row_task.cuh). Memory per edge: the column id, its weight if it has one, and one row of x.
#include "gnna/row_task.cuh"

namespace gnna::cuda {

namespace {

template <typename T>
struct ArgRows : SpmmArgs<T> {
  int32_t* arg;

  __host__ __device__ int64_t width() const { return this->heads * this->head_dim; }
};

template <typename T, int VW, bool kMax>
struct ArgTask {
  using Args = ArgRows<T>;
  using C = Compute<T>;
  static constexpr int kPiece = VW, kBatch = 1, kBlocks = kTaskBlocks<T, VW>;
  // The best messages so far of a piece, before rounding, and their slots (-1 for the start value). For double there
  // are twice as many slots as are used, because padding in their place would stay uninitialised.
  struct Found {
    Pack<C, VW> value;
    int32_t slot[VW * sizeof(C) / 4];
  };

  const ArgRows<T>& args;
  int64_t row, column, head;

  __device__ __forceinline__ ArgTask(const ArgRows<T>& a, int64_t r, int64_t c)
      : args(a), row(r), column(c), head(a.weight != nullptr ? c / a.head_dim : 0) {}

  __device__ __forceinline__ Found start() const {
    Found found{};
#pragma unroll
    for (int i = 0; i < VW; ++i) {
      found.value.v[i] = static_cast<C>(kMax ? -INFINITY : INFINITY);
      found.slot[i] = -1;
    }
    return found;
  }

  static __device__ __forceinline__ bool beats(C a, C b) { return kMax ? a > b : a < b; }

  // A thread's slots ascend, so a strict comparison keeps the first of equal messages.
  template <int N>
  __device__ __forceinline__ void add(Found& found, int64_t slot, int64_t) const {
    Pack<C, VW> message = load_pack<VW>(args.x + __ldg(args.csr.col + slot) * args.x_stride + column);
    if (args.weight != nullptr) {
      const int64_t at = args.weight_index != nullptr ? __ldg(args.weight_index + slot) : slot;
      const C weight = widen(load_one(args.weight + at * args.heads + head));
#pragma unroll
      for (int i = 0; i < VW; ++i) message.v[i] = product(weight, message.v[i]);
    }
#pragma unroll
    for (int i = 0; i < VW; ++i) {
      if (!beats(message.v[i], found.value.v[i])) continue;
      found.value.v[i] = message.v[i];
      found.slot[i] = static_cast<int32_t>(slot);
    }
  }

  // Keeps the earlier slot of equal values. A start value has slot -1 and equals only other start values, because a
  // message that equals it never wins.
  static __device__ __forceinline__ void combine(Found& found, const Found& other) {
#pragma unroll
    for (int i = 0; i < VW; ++i) {
      const bool earlier = other.value.v[i] == found.value.v[i] && other.slot[i] < found.slot[i];
      if (!beats(other.value.v[i], found.value.v[i]) && !earlier) continue;
      found.value.v[i] = other.value.v[i];
      found.slot[i] = other.slot[i];
    }
  }

  __device__ __forceinline__ void finish(const Found& found) const {
    const int64_t at = row * args.width() + column;
    store_pack(args.out + at, found.value);
#pragma unroll
    for (int i = 0; i < VW; ++i) {
      const int32_t slot = found.slot[i];
      args.arg[at + i] = slot >= 0 && args.csr.perm != nullptr ? __ldg(args.csr.perm + slot) : slot;
    }
  }
};

template <typename T, int VW>
cudaError_t launch_arg(const ArgRows<T>& args, const SplitRows& split_rows, void* scratch, cudaStream_t stream) {
  if (args.reduce == Reduce::Max) return launch_task<T, ArgTask<T, VW, true>>(args, split_rows, scratch, stream);
  return launch_task<T, ArgTask<T, VW, false>>(args, split_rows, scratch, stream);
}

}  // namespace

template <typename T>
cudaError_t spmm_arg(const SpmmArgs<T>& args, int32_t* arg, const SplitRows& split_rows, void* scratch,
                     cudaStream_t stream) {
  const CsrView& csr = args.csr;
  if (csr.rows < 0 || csr.rows > kMaxIndex || csr.edges < 0 || csr.edges > kMaxIndex || args.heads < 0 ||
      args.head_dim < 0 || (args.reduce != Reduce::Max && args.reduce != Reduce::Min)) {
    return cudaErrorInvalidValue;
  }
  ArgRows<T> rows{};
  static_cast<SpmmArgs<T>&>(rows) = args;
  rows.arg = arg;
  const int64_t n = kVectorWidth<T>, unit = args.weight != nullptr ? args.head_dim : rows.width();
  const bool vectors =
      unit % n == 0 && args.x_stride % n == 0 && is_aligned(args.x, kVectorBytes) && is_aligned(args.out, kVectorBytes);
  if (vectors) return launch_arg<T, kVectorWidth<T>>(rows, split_rows, scratch, stream);
  return launch_arg<T, 1>(rows, split_rows, scratch, stream);
}

#define GNNA_INSTANTIATE(T) \
  template cudaError_t spmm_arg(const SpmmArgs<T>&, int32_t*, const SplitRows&, void*, cudaStream_t)
GNNA_FOR_EACH_TYPE(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
