// Weight gradient of a max or min aggregation: for each edge and head, the sum of x times the shares that the edge's
// messages receive. Edge-parallel, like SDDMM.
#include "gnna/cuda_api.h"
#include "gnna/edge_pairs.cuh"

namespace gnna::cuda {

namespace {

// As in torch, the mask is a factor: an infinite or NaN share therefore makes the gradients of edges that lost NaN,
// too.
template <typename T>
struct WinnerTerm {
  // No register limit: with fewer registers it was 3 to 17 % slower from width 64 on (H200).
  static constexpr int kBlocks = 1;

  const T* x;
  const T* weight;
  const T* out;
  const Compute<T>* share;

  int64_t heads;
  int head_dim;

  template <int VW>
  __device__ __forceinline__ Compute<T> add(Compute<T> acc, int64_t source, int64_t destination, int64_t edge,
                                            int column) const {
    using C = Compute<T>;
    const C w = widen(load_one(weight + edge * heads + (heads > 1 ? column / head_dim : 0)));
    const Pack<C, VW> xs = load_pack<VW>(x + source);
    const Pack<C, VW> best = load_pack<VW>(out + destination);
    const Pack<C, VW> part = load_pack<VW>(share + destination);
#pragma unroll
    for (int i = 0; i < VW; ++i) {
      const C mask = rounded_to<T>(product(w, xs.v[i])) == best.v[i] ? C(1) : C(0);
      acc = fma(mask * part.v[i], xs.v[i], acc);
    }
    return acc;
  }
};

}  // namespace

template <typename T, typename Id>
cudaError_t extremum_grad_weight(const Id* src, const Id* dst, int64_t edges, const ExtremumArgs<T>& args,
                                 cudaStream_t stream) {
  if (edges < 0 || args.heads < 0 || args.head_dim < 0 || args.heads > kMaxIndex) return cudaErrorInvalidValue;
  if (edges == 0 || args.heads == 0) return cudaSuccess;
  if (args.weight == nullptr) return cudaErrorInvalidValue;
  const WinnerTerm<T> term{args.x, args.weight, args.out, args.share, args.heads, static_cast<int>(args.head_dim)};
  if (args.head_dim % kVectorWidth<T> == 0 && is_aligned(args.x, kVectorBytes) && is_aligned(args.out, kVectorBytes) &&
      is_aligned(args.share, kVectorBytes)) {
    return launch_edge_pairs<T, kVectorWidth<T>>(src, dst, edges, args.heads, args.head_dim, args.grad_weight, term,
                                                 stream);
  }
  return launch_edge_pairs<T, 1>(src, dst, edges, args.heads, args.head_dim, args.grad_weight, term, stream);
}

#define GNNA_INSTANTIATE(T, Id) \
  template cudaError_t extremum_grad_weight(const Id*, const Id*, int64_t, const ExtremumArgs<T>&, cudaStream_t)
GNNA_FOR_EACH_TYPE_AND_ID(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
