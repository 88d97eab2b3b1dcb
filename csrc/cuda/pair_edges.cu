// pair_dot and pair_map: a function of both ends of every edge, summed per edge and head, or stored. Edge-parallel:
// they read the edge list, not a plan. Memory per edge: both ids, one row of each given operand, and the result.
#include "gnna/cuda_api.h"
#include "gnna/edge_pairs.cuh"
#include "gnna/pair_value.cuh"

namespace gnna::cuda {

namespace {

template <typename T, bool kLight>
struct PairTerm {
  static constexpr int kBlocks = 8;

  PairArgs<T> args;

  // `column` is the offset of the elements in their row.
  template <int VW>
  __device__ __forceinline__ Compute<T> add(Compute<T> acc, int64_t source, int64_t destination, int64_t edge,
                                            int column) const {
    const int64_t at = edge * args.heads * args.head_dim + column;
    Pack<Compute<T>, VW> value[1];
    pair_values<kAny, kLight>(args, load_if_given<VW>(args.rows, destination), destination, {source}, {at}, value);
    if (args.left != nullptr) {
      multiply(value[0], load_pack<VW>(args.left + (args.left_stride == 0 ? column : destination)));
    }
#pragma unroll
    for (int i = 0; i < VW; ++i) acc += value[0].v[i];
    return acc;
  }
};

constexpr int kMapBlock = 256;

template <typename T, int VW, bool kLight, typename Id>
__global__ void __launch_bounds__(kMapBlock, 1)
    map_edges(const Id* src, const Id* dst, const __grid_constant__ PairArgs<T> args, int lanes_log2) {
  const int lanes = 1 << lanes_log2;
  const int64_t width = args.heads * args.head_dim;
  const int64_t edge = static_cast<int64_t>(blockIdx.x) * (kMapBlock >> lanes_log2) + (threadIdx.x >> lanes_log2);
  if (edge >= args.csr.edges) return;
  const int64_t row = static_cast<int64_t>(__ldg(dst + edge)), col = static_cast<int64_t>(__ldg(src + edge));
  for (int64_t column = (threadIdx.x & (lanes - 1)) * VW; column < width; column += lanes * VW) {
    const int64_t of_row = row * width + column, at = edge * width + column;
    Pack<Compute<T>, VW> value[1];
    pair_values<kAny, kLight>(args, load_if_given<VW>(args.rows, of_row), of_row, {col * width + column}, {at}, value);
    if (args.left != nullptr) multiply(value[0], load_pack<VW>(args.left + row * args.left_stride + column));
    weigh(args, edge, column, value[0]);
    store_pack(args.out + at, value[0]);
  }
}

template <typename T, int VW, bool kLight, typename Id>
cudaError_t launch_map(const Id* src, const Id* dst, const PairArgs<T>& args, cudaStream_t stream) {
  const int64_t pieces = args.heads * args.head_dim / VW;
  int lanes = 1;
  while (lanes < 32 && lanes < pieces) lanes *= 2;
  const int64_t blocks = ceil_div(args.csr.edges, kMapBlock / lanes);
  return launch(map_edges<T, VW, kLight, Id>, static_cast<unsigned>(blocks), kMapBlock, 0, stream, src, dst, args,
                log2_of(lanes));
}

template <bool kLight, typename T, typename Id>
cudaError_t dot(const Id* src, const Id* dst, const PairArgs<T>& args, cudaStream_t stream) {
  const PairTerm<T, kLight> term{args};
  if (can_vectorise(args, args.head_dim)) {
    return launch_edge_pairs<T, kVectorWidth<T>>(src, dst, args.csr.edges, args.heads, args.head_dim, args.out, term,
                                                 stream);
  }
  return launch_edge_pairs<T, 1>(src, dst, args.csr.edges, args.heads, args.head_dim, args.out, term, stream);
}

template <bool kLight, typename T, typename Id>
cudaError_t map(const Id* src, const Id* dst, const PairArgs<T>& args, cudaStream_t stream) {
  return can_vectorise(args, unit_of(args)) ? launch_map<T, kVectorWidth<T>, kLight>(src, dst, args, stream)
                                            : launch_map<T, 1, kLight>(src, dst, args, stream);
}

}  // namespace

template <typename T, typename Id>
cudaError_t pair_dot(const Id* src, const Id* dst, const PairArgs<T>& args, cudaStream_t stream) {
  if (!is_valid(args)) return cudaErrorInvalidValue;
  if (args.csr.edges == 0 || args.heads == 0) return cudaSuccess;
  return is_light(args.function) ? dot<true>(src, dst, args, stream) : dot<false>(src, dst, args, stream);
}

template <typename T, typename Id>
cudaError_t pair_map(const Id* src, const Id* dst, const PairArgs<T>& args, cudaStream_t stream) {
  if (!is_valid(args)) return cudaErrorInvalidValue;
  if (args.csr.edges == 0 || args.heads * args.head_dim == 0) return cudaSuccess;
  return is_light(args.function) ? map<true>(src, dst, args, stream) : map<false>(src, dst, args, stream);
}

#define GNNA_INSTANTIATE(T, Id)                                                          \
  template cudaError_t pair_dot(const Id*, const Id*, const PairArgs<T>&, cudaStream_t); \
  template cudaError_t pair_map(const Id*, const Id*, const PairArgs<T>&, cudaStream_t)
GNNA_FOR_EACH_TYPE_AND_ID(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
