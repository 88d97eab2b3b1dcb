// SDDMM: one dot product of a source row and a destination row per edge and head.
#include "gnna/cuda_api.h"
#include "gnna/edge_pairs.cuh"

namespace gnna::cuda {

namespace {

template <typename T>
struct DotTerm {
  // 64 warps per multiprocessor and two pieces per lane were 8 to 18 % faster than 32 or 40 warps with up to four
  // pieces (H200, float; docs/profile-h200.md, Registers).
  static constexpr int kBlocks = 16;

  const T* a;
  const T* b;

  template <int VW>
  __device__ __forceinline__ Compute<T> add(Compute<T> acc, int64_t source, int64_t destination, int64_t, int) const {
    const Pack<Compute<T>, VW> x = load_pack<VW>(a + source);
    const Pack<Compute<T>, VW> y = load_pack<VW>(b + destination);
#pragma unroll
    for (int i = 0; i < VW; ++i) acc = fma(x.v[i], y.v[i], acc);
    return acc;
  }
};

}  // namespace

template <typename T, typename Id>
cudaError_t sddmm(const Id* src, const Id* dst, const SddmmArgs<T>& args, cudaStream_t stream) {
  const int64_t edges = args.csr.edges;
  if (edges < 0 || args.heads < 0 || args.head_dim < 0 || args.heads > kMaxIndex) return cudaErrorInvalidValue;
  if (edges == 0 || args.heads == 0) return cudaSuccess;
  const DotTerm<T> term{args.a, args.b};
  if (args.head_dim % kVectorWidth<T> == 0 && is_aligned(args.a, kVectorBytes) && is_aligned(args.b, kVectorBytes)) {
    return launch_edge_pairs<T, kVectorWidth<T>>(src, dst, edges, args.heads, args.head_dim, args.out, term, stream);
  }
  return launch_edge_pairs<T, 1>(src, dst, edges, args.heads, args.head_dim, args.out, term, stream);
}

#define GNNA_INSTANTIATE(T, Id) template cudaError_t sddmm(const Id*, const Id*, const SddmmArgs<T>&, cudaStream_t)
GNNA_FOR_EACH_TYPE_AND_ID(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
