// Feature gradient of a max or min aggregation, in two passes over rows (row_task.cuh). The first divides every
// destination's gradient by the number of messages that equal its result (share). The second sums, for every source,
// the shares of the messages that it won (grad_x).
// Memory per edge: the column id; the edge's position in the user's list and its weight, if there are weights; and one
// row of x (share) or one row each of out and share (grad_x).
#include "gnna/row_task.cuh"

namespace gnna::cuda {

namespace {

template <typename T>
struct ExtremumRows {
  CsrView csr;
  ExtremumArgs<T> values;

  __host__ __device__ int64_t width() const { return values.heads * values.head_dim; }
};

// One piece of one row, with access to the other ends and the weights of its edges.
template <typename T, int VW>
struct ExtremumPiece {
  using Args = ExtremumRows<T>;
  using C = Compute<T>;
  static constexpr int kPiece = VW, kBatch = 1, kBlocks = kTaskBlocks<T, VW>;

  const ExtremumRows<T>& args;
  int64_t column, at, head;

  __device__ __forceinline__ ExtremumPiece(const ExtremumRows<T>& a, int64_t row, int64_t c)
      : args(a), column(c), at(row * a.width() + c), head(a.values.weight != nullptr ? c / a.values.head_dim : 0) {}

  __device__ __forceinline__ int64_t other(int64_t slot) const {
    return __ldg(args.csr.col + slot) * args.width() + column;
  }

  __device__ __forceinline__ C weight(int64_t slot) const {
    if (args.values.weight == nullptr) return C(1);
    const int64_t edge = args.csr.perm != nullptr ? __ldg(args.csr.perm + slot) : slot;
    return widen(load_one(args.values.weight + edge * args.values.heads + head));
  }
};

// Counts the messages that equal the row's result and computes the share of each in the row's gradient.
template <typename T, int VW>
struct ShareTask : ExtremumPiece<T, VW> {
  using Base = ExtremumPiece<T, VW>;
  using C = Compute<T>;
  struct Found {
    int32_t sharers[VW];
  };
  Pack<C, VW> best;

  __device__ __forceinline__ ShareTask(const ExtremumRows<T>& args, int64_t row, int64_t column)
      : Base(args, row, column), best(load_pack<VW>(args.values.out + this->at)) {}

  __device__ __forceinline__ Found start() const { return {}; }

  template <int N>
  __device__ __forceinline__ void add(Found& found, int64_t slot, int64_t) const {
    const C weight = this->weight(slot);
    const Pack<C, VW> x = load_pack<VW>(this->args.values.x + this->other(slot));
#pragma unroll
    for (int i = 0; i < VW; ++i) found.sharers[i] += rounded_to<T>(product(weight, x.v[i])) == best.v[i];
  }

  static __device__ __forceinline__ void combine(Found& found, const Found& other) {
#pragma unroll
    for (int i = 0; i < VW; ++i) found.sharers[i] += other.sharers[i];
  }

  __device__ __forceinline__ void finish(const Found& found) const {
    // torch.scatter_reduce counts its initial zero as one more message, so a result of 0 has one more sharer.
    Pack<C, VW> share = load_pack<VW>(this->args.values.grad + this->at);
#pragma unroll
    for (int i = 0; i < VW; ++i) share.v[i] /= static_cast<C>(found.sharers[i] + (best.v[i] == C(0)));
    store_pack(this->args.values.share + this->at, share);
  }
};

// Sums the gradients that a source's features receive from the rows in which one of its messages won.
template <typename T, int VW>
struct GradXTask : ExtremumPiece<T, VW> {
  using Base = ExtremumPiece<T, VW>;
  using C = Compute<T>;
  using Found = Pack<C, VW>;
  static constexpr int kBlocks = kTaskBlocks<T, VW> < 12 ? kTaskBlocks<T, VW> : 12;  // 16 are 4 to 9 % slower
  Pack<C, VW> x;

  __device__ __forceinline__ GradXTask(const ExtremumRows<T>& args, int64_t row, int64_t column)
      : Base(args, row, column), x(load_pack<VW>(args.values.x + this->at)) {}

  __device__ __forceinline__ Found start() const { return {}; }

  template <int N>
  __device__ __forceinline__ void add(Found& found, int64_t slot, int64_t) const {
    const C weight = this->weight(slot);
    const int64_t other = this->other(slot);
    const Pack<C, VW> best = load_pack<VW>(this->args.values.out + other);
    const Pack<C, VW> share = load_pack<VW>(this->args.values.share + other);
#pragma unroll
    for (int i = 0; i < VW; ++i) {
      // As in torch, the mask is a factor: an infinite or NaN share therefore makes the gradients of messages that lost
      // NaN, too.
      const C mask = rounded_to<T>(product(weight, x.v[i])) == best.v[i] ? C(1) : C(0);
      found.v[i] = fma(mask * share.v[i], weight, found.v[i]);
    }
  }

  static __device__ __forceinline__ void combine(Found& found, const Found& other) {
#pragma unroll
    for (int i = 0; i < VW; ++i) found.v[i] += other.v[i];
  }

  __device__ __forceinline__ void finish(const Found& found) const {
    store_pack(this->args.values.grad_x + this->at, found);
  }
};

// 16-byte loads need rows that are aligned to 16 bytes, and pieces whose elements share one weight.
template <typename T>
bool can_vectorise(const ExtremumArgs<T>& args) {
  const int64_t unit = args.weight != nullptr ? args.head_dim : args.heads * args.head_dim;
  const void* const rows[] = {args.grad, args.x, args.out, args.share, args.grad_x};
  bool aligned = unit % kVectorWidth<T> == 0;
  for (const void* p : rows) aligned = aligned && is_aligned(p, kVectorBytes);
  return aligned;
}

template <template <typename, int> typename Task, typename T>
cudaError_t launch_extremum(const CsrView& csr, const ExtremumArgs<T>& values, const SplitRows& split_rows,
                            void* scratch, cudaStream_t stream) {
  if (csr.rows < 0 || csr.rows > kMaxIndex || csr.edges < 0 || csr.edges > kMaxIndex || values.heads < 0 ||
      values.head_dim < 0) {
    return cudaErrorInvalidValue;
  }
  const ExtremumRows<T> args{csr, values};
  if (can_vectorise(values)) {
    return launch_task<T, Task<T, kVectorWidth<T>>>(args, split_rows, scratch, stream);
  }
  return launch_task<T, Task<T, 1>>(args, split_rows, scratch, stream);
}

}  // namespace

template <typename T>
cudaError_t extremum_share(const CsrView& forward, const ExtremumArgs<T>& args, const SplitRows& split_rows,
                           void* scratch, cudaStream_t stream) {
  return launch_extremum<ShareTask>(forward, args, split_rows, scratch, stream);
}

template <typename T>
cudaError_t extremum_grad_x(const CsrView& transposed, const ExtremumArgs<T>& args, const SplitRows& split_rows,
                            void* scratch, cudaStream_t stream) {
  return launch_extremum<GradXTask>(transposed, args, split_rows, scratch, stream);
}

#define GNNA_INSTANTIATE(T)                                                                                           \
  template cudaError_t extremum_share(const CsrView&, const ExtremumArgs<T>&, const SplitRows&, void*, cudaStream_t); \
  template cudaError_t extremum_grad_x(const CsrView&, const ExtremumArgs<T>&, const SplitRows&, void*, cudaStream_t)
GNNA_FOR_EACH_TYPE(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
