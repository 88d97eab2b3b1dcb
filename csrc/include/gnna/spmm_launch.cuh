// The host side of the row kernel: checks a configuration against the pointers it is meant for, lays out the scratch of
// the long rows and launches. One translation unit per element type and reduction instantiates it, to keep builds
// short.
#pragma once

#include "gnna/launch.cuh"
#include "gnna/spmm_rows.cuh"

namespace gnna::cuda {

// A launch narrower than this per tile is refused (unless the whole width is narrower): it bounds the counters.
constexpr int64_t kMinTile = 4;

// What a launch may have without asking for more; 16-bit pieces, which are 32 bytes as numbers, can come to twice that.
constexpr size_t kMaxShared = 48 << 10;

template <typename T>
size_t partials_bytes(int64_t items, int64_t width) {
  const size_t bytes = static_cast<size_t>(items) * static_cast<size_t>(width) * sizeof(Compute<T>);
  return (bytes + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
}

// Shared memory in which the warps of a block that took an item meet.
template <typename T>
size_t shared_bytes_of_item(int lanes, int vectors, int vector_width, int block) {
  return sizeof(Compute<T>) * static_cast<size_t>(lanes) * vectors * vector_width * (block / 32);
}

template <typename T>
cudaError_t check_row_config(const SpmmArgs<T>& args, const RowConfig& config, int64_t width) {
  const bool known_vectors = config.vectors == 1 || config.vectors == 2 || config.vectors == 4;
  const bool known_width = config.vector_width == 1 || config.vector_width == kVectorWidth<T>;
  if (!known_vectors || !known_width || !is_power_of_two(config.lanes) || !is_power_of_two(config.groups) ||
      config.lanes > 32 || config.groups > 32 || config.lanes * config.groups > 32 || config.block < 32 ||
      config.block % 32 != 0 || config.block > kMaxRowBlock) {
    return cudaErrorInvalidValue;
  }
  const int64_t tile = static_cast<int64_t>(config.lanes) * config.vectors * config.vector_width;
  if (tile < kMinTile && tile < width) return cudaErrorInvalidValue;
  if (shared_bytes_of_item<T>(config.lanes, config.vectors, config.vector_width, config.block) > kMaxShared) {
    return cudaErrorInvalidValue;
  }
  if (config.vector_width > 1) {
    const int64_t n = config.vector_width;
    if (width % n != 0 || args.x_stride % n != 0 || !is_aligned(args.x, kVectorBytes) ||
        !is_aligned(args.out, kVectorBytes) || (args.weight != nullptr && args.head_dim % n != 0)) {
      return cudaErrorInvalidValue;
    }
  }
  return cudaSuccess;
}

template <typename T, int VW, int V, Weighting W, typename Op>
cudaError_t launch_rows(RowParams<T> params, dim3 grid, int block, cudaStream_t stream) {
  const size_t shared = params.item_count > 0 ? shared_bytes_of_item<T>(1 << params.lanes_log2, V, VW, block) : 0;
  const int64_t tiles = params.tiles;
  for (int64_t first = 0; first < tiles; first += kMaxGridY) {
    params.first_tile = first;
    grid.y = static_cast<unsigned>(tiles - first < kMaxGridY ? tiles - first : kMaxGridY);
    const cudaError_t error = launch(spmm_rows<T, VW, V, W, Op>, grid, block, shared, stream, params);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <typename T, int VW, int V, typename Op>
cudaError_t launch_weighting(const RowParams<T>& params, dim3 grid, int block, cudaStream_t stream) {
  if (params.weight == nullptr) return launch_rows<T, VW, V, Weighting::None, Op>(params, grid, block, stream);
  if (params.heads == 1) return launch_rows<T, VW, V, Weighting::PerEdge, Op>(params, grid, block, stream);
  return launch_rows<T, VW, V, Weighting::PerHead, Op>(params, grid, block, stream);
}

template <typename T, int VW, typename Op>
cudaError_t launch_vectors(const RowParams<T>& params, const RowConfig& config, dim3 grid, cudaStream_t stream) {
  if (config.vectors == 1) return launch_weighting<T, VW, 1, Op>(params, grid, config.block, stream);
  if (config.vectors == 2) return launch_weighting<T, VW, 2, Op>(params, grid, config.block, stream);
  return launch_weighting<T, VW, 4, Op>(params, grid, config.block, stream);
}

// Sum (and mean, which divides at the row's end), max or min, as Op says.
template <typename T, typename Op>
cudaError_t spmm_op(const SpmmArgs<T>& args, const RowConfig& config, const LongRows& long_rows, void* scratch,
                    cudaStream_t stream) {
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
  if (csr.rows < 0 || csr.rows > kMaxIndex || csr.edges < 0 || csr.edges > kMaxIndex || args.heads < 0 ||
      args.head_dim < 0 || long_rows.count < 0) {
    return cudaErrorInvalidValue;
  }
  if (csr.rows == 0 || width == 0) return cudaSuccess;
  if (csr.edges == 0) {
    return cudaMemsetAsync(args.out, 0, static_cast<size_t>(csr.rows) * width * sizeof(T), stream);
  }
  cudaError_t error = check_row_config(args, config, width);
  if (error != cudaSuccess) return error;

  RowParams<T> params{};
  params.rowptr = csr.rowptr;
  params.col = csr.col;
  params.x = args.x;
  params.weight = args.weight;
  params.weight_index = args.weight_index;
  params.out = args.out;
  params.rows = csr.rows;
  params.width = width;
  params.x_stride = args.x_stride;
  params.heads = args.heads;
  params.head_dim = args.head_dim;
  // Without items nobody else takes the long rows, so the row part takes them all.
  params.long_row = long_rows.count > 0 ? config.long_row : INT64_MAX;
  params.tiles = ceil_div(width, static_cast<int64_t>(config.lanes) * config.vectors * config.vector_width);
  params.lanes_log2 = log2_of(config.lanes);
  params.groups_log2 = log2_of(config.groups);
  params.mean = args.reduce == Reduce::Mean;

  const int64_t rows_per_block = config.block / (config.lanes * config.groups);
  const int64_t blocks = long_rows.count + ceil_div(csr.rows, rows_per_block);
  if (blocks > kMaxIndex) return cudaErrorInvalidValue;
  if (long_rows.count > 0) {
    if (long_rows.items == nullptr || scratch == nullptr || !is_aligned(scratch, kVectorBytes)) {
      return cudaErrorInvalidValue;
    }
    params.items = long_rows.items;
    params.item_count = static_cast<uint32_t>(long_rows.count);
    params.partials = static_cast<Compute<T>*>(scratch);
    params.counters =
        reinterpret_cast<int32_t*>(static_cast<unsigned char*>(scratch) + partials_bytes<T>(long_rows.count, width));
    error = cudaMemsetAsync(params.counters, 0, sizeof(int32_t) * long_rows.count * params.tiles, stream);
    if (error != cudaSuccess) return error;
  }
  const dim3 grid(static_cast<unsigned>(blocks));
  if (config.vector_width == 1) return launch_vectors<T, 1, Op>(params, config, grid, stream);
  return launch_vectors<T, kVectorWidth<T>, Op>(params, config, grid, stream);
}

#define GNNA_COMPILED_ELSEWHERE(T, Op) \
  extern template cudaError_t spmm_op<T, Op>(const SpmmArgs<T>&, const RowConfig&, const LongRows&, void*, cudaStream_t)
GNNA_COMPILED_ELSEWHERE(float, SumOp);
GNNA_COMPILED_ELSEWHERE(float, MaxOp);
GNNA_COMPILED_ELSEWHERE(float, MinOp);
GNNA_COMPILED_ELSEWHERE(double, SumOp);
GNNA_COMPILED_ELSEWHERE(double, MaxOp);
GNNA_COMPILED_ELSEWHERE(double, MinOp);
GNNA_COMPILED_ELSEWHERE(Float16, SumOp);
GNNA_COMPILED_ELSEWHERE(Float16, MaxOp);
GNNA_COMPILED_ELSEWHERE(Float16, MinOp);
GNNA_COMPILED_ELSEWHERE(BFloat16, SumOp);
GNNA_COMPILED_ELSEWHERE(BFloat16, MaxOp);
GNNA_COMPILED_ELSEWHERE(BFloat16, MinOp);
#undef GNNA_COMPILED_ELSEWHERE

}  // namespace gnna::cuda
