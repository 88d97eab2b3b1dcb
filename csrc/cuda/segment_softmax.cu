// Softmax over the edges of a row, and its gradient, without atomics. First a row task (row_task.cuh) computes each
// row's total: the largest score and the sum of exponentials or, for the gradient, the sum of out * grad. Then an
// edge-parallel kernel computes every edge, in the user's order, from its row's total.
// Memory per edge and head: first, the position in the user's list and one score (or out and grad); then the row id,
// the same values again, the row's total and the result.
#include "gnna/row_task.cuh"

namespace gnna::cuda {

namespace {

constexpr int kEdgeBlock = 256;

// Returns the index of the first head of a slot's edge in arrays that are in the user's order.
__device__ __forceinline__ int64_t scores_at(const CsrView& csr, int64_t slot, int64_t heads) {
  return (csr.perm != nullptr ? __ldg(csr.perm + slot) : slot) * heads;
}

// Finds a row's largest score and the sum of exp(score - largest score).
template <typename T>
struct SoftmaxTask {
  using C = Compute<T>;
  using Found = Pack<C, 2>;  // largest score so far, sum relative to it
  static constexpr int kPiece = 1, kBatch = 1, kBlocks = kTaskBlocks<T, 1>;
  struct Args : SegmentSoftmaxArgs<T> {
    Found* totals;  // [rows, heads]
    __host__ __device__ int64_t width() const { return this->heads; }
  };

  const Args& args;
  int64_t row, head;

  __device__ __forceinline__ SoftmaxTask(const Args& a, int64_t r, int64_t h) : args(a), row(r), head(h) {}

  __device__ __forceinline__ Found start() const { return {{static_cast<C>(-INFINITY), C(0)}}; }

  // Returns the factor that changes a sum relative to `most` into one relative to `next`. If they are equal it is 1
  // without an exponential, because for -inf the difference would be NaN. For +inf NaN is the right result.
  static __device__ __forceinline__ C rescale(C most, C next) {
    return most == next && most != static_cast<C>(INFINITY) ? C(1) : exponential(most - next);
  }

  static __device__ __forceinline__ void combine(Found& found, const Found& other) {
    const C larger = other.v[0] > found.v[0] ? other.v[0] : found.v[0];
    found.v[1] = found.v[1] * rescale(found.v[0], larger) + other.v[1] * rescale(other.v[0], larger);
    found.v[0] = larger;
  }

  // A NaN score never becomes the largest score, but makes the sum NaN.
  template <int N>
  __device__ __forceinline__ void add(Found& found, int64_t slot, int64_t) const {
    const C score = widen(load_one(args.scores + scores_at(args.csr, slot, args.heads) + head));
    if (score > found.v[0]) {
      found.v[1] = found.v[1] * rescale(found.v[0], score) + rescale(score, score);
      found.v[0] = score;
    } else {
      found.v[1] += rescale(score, found.v[0]);
    }
  }

  __device__ __forceinline__ void finish(const Found& found) const { args.totals[row * args.heads + head] = found; }

  static __device__ __forceinline__ void write(const Args& args, int64_t at, const Found& total) {
    args.out[at] = narrow<T>(exponential(widen(load_one(args.scores + at)) - total.v[0]) / total.v[1]);
  }
};

// Computes a row's sum of out * grad.
template <typename T>
struct GradientTask {
  using C = Compute<T>;
  using Found = Pack<C, 1>;
  static constexpr int kPiece = 1, kBatch = 1, kBlocks = kTaskBlocks<T, 1>;
  struct Args : SegmentSoftmaxBackwardArgs<T> {
    Found* totals;  // [rows, heads]
    __host__ __device__ int64_t width() const { return this->heads; }
  };

  const Args& args;
  int64_t row, head;

  __device__ __forceinline__ GradientTask(const Args& a, int64_t r, int64_t h) : args(a), row(r), head(h) {}

  __device__ __forceinline__ Found start() const { return {{C(0)}}; }

  static __device__ __forceinline__ void combine(Found& found, const Found& other) { found.v[0] += other.v[0]; }

  template <int N>
  __device__ __forceinline__ void add(Found& found, int64_t slot, int64_t) const {
    const int64_t at = scores_at(args.csr, slot, args.heads) + head;
    found.v[0] = fma(widen(load_one(args.out + at)), widen(load_one(args.grad + at)), found.v[0]);
  }

  __device__ __forceinline__ void finish(const Found& found) const { args.totals[row * args.heads + head] = found; }

  static __device__ __forceinline__ void write(const Args& args, int64_t at, const Found& total) {
    args.grad_scores[at] = narrow<T>(widen(load_one(args.out + at)) * (widen(load_one(args.grad + at)) - total.v[0]));
  }
};

template <typename Task, typename Id>
__global__ void __launch_bounds__(kEdgeBlock, 1)
    write_edges(const __grid_constant__ typename Task::Args args, const Id* index, int64_t elements) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kEdgeBlock + threadIdx.x;
  if (at >= elements) return;
  int64_t edge = at, head = 0;
  if (args.heads > 1) {  // 64-bit division is about ten times slower than 32-bit
    edge = elements <= UINT32_MAX ? static_cast<uint32_t>(at) / static_cast<uint32_t>(args.heads) : at / args.heads;
    head = at - edge * args.heads;
  }
  Task::write(args, at, args.totals[static_cast<int64_t>(__ldg(index + edge)) * args.heads + head]);
}

template <typename T, typename Task, typename Id, typename Given>
cudaError_t softmax_with(const Id* index, const Given& given, const SplitRows& split_rows, void* totals, void* scratch,
                         cudaStream_t stream) {
  const CsrView& csr = given.csr;
  if (csr.rows < 0 || csr.rows > kMaxIndex || csr.edges < 0 || csr.edges > kMaxIndex || given.heads < 0) {
    return cudaErrorInvalidValue;
  }
  if (csr.edges == 0 || given.heads == 0) return cudaSuccess;
  if (totals == nullptr || !is_aligned(totals, kVectorBytes)) return cudaErrorInvalidValue;
  typename Task::Args args{};
  static_cast<Given&>(args) = given;
  args.totals = static_cast<typename Task::Found*>(totals);
  const int64_t elements = csr.edges * given.heads, blocks = ceil_div(elements, kEdgeBlock);
  if (blocks > kMaxIndex) return cudaErrorInvalidValue;
  const cudaError_t error = launch_task<T, Task>(args, split_rows, scratch, stream);
  if (error != cudaSuccess) return error;
  return launch(write_edges<Task, Id>, static_cast<unsigned>(blocks), kEdgeBlock, 0, stream, args, index, elements);
}

}  // namespace

template <typename T, typename Id>
cudaError_t segment_softmax(const Id* index, const SegmentSoftmaxArgs<T>& args, const SplitRows& split_rows,
                            void* totals, void* scratch, cudaStream_t stream) {
  return softmax_with<T, SoftmaxTask<T>>(index, args, split_rows, totals, scratch, stream);
}

template <typename T, typename Id>
cudaError_t segment_softmax_backward(const Id* index, const SegmentSoftmaxBackwardArgs<T>& args,
                                     const SplitRows& split_rows, void* totals, void* scratch, cudaStream_t stream) {
  return softmax_with<T, GradientTask<T>>(index, args, split_rows, totals, scratch, stream);
}

#define GNNA_INSTANTIATE(T, Id)                                                                                    \
  template cudaError_t segment_softmax(const Id*, const SegmentSoftmaxArgs<T>&, const SplitRows&, void*, void*,    \
                                       cudaStream_t);                                                              \
  template cudaError_t segment_softmax_backward(const Id*, const SegmentSoftmaxBackwardArgs<T>&, const SplitRows&, \
                                                void*, void*, cudaStream_t)
GNNA_FOR_EACH_TYPE_AND_ID(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
