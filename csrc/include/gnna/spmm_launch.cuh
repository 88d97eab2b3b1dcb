// The host side of kernels `row` and `group`: checks the configuration against the arguments, lays out the scratch of
// the split rows and launches. It is instantiated in one translation unit per element type and reduction, to keep
// compilation short.
#pragma once

#include "gnna/launch.cuh"
#include "gnna/spmm_group.cuh"
#include "gnna/spmm_row.cuh"

namespace gnna::cuda {

// Returns the number of column tiles that a configuration needs for this width.
inline int64_t tiles_of(const KernelConfig& config, int64_t width) {
  return ceil_div(width, static_cast<int64_t>(config.lanes) * config.vectors * config.vector_width);
}

// Returns the width rounded up to whole packs.
inline int64_t whole_packs_of(int64_t width, const KernelConfig& config) {
  return ceil_div(width, config.vector_width) * config.vector_width;
}

template <typename T>
size_t partials_bytes(int64_t chunks, int64_t width) {
  const size_t bytes = static_cast<size_t>(chunks) * static_cast<size_t>(width) * sizeof(Compute<T>);
  return (bytes + kVectorBytes - 1) / kVectorBytes * kVectorBytes;
}

template <typename T>
cudaError_t check_config(const SpmmArgs<T>& args, const KernelConfig& config, int64_t width) {
  const bool groups = config.kernel == Kernel::Group;
  const bool known_vectors = config.vectors == 1 || config.vectors == 2 || (config.vectors == 4 && !groups);
  const bool known_width = config.vector_width == 1 || config.vector_width == kVectorWidth<T>;
  if (!known_vectors || !known_width || !is_power_of_two(config.lanes) || config.lanes > 32 || config.block < 32 ||
      config.block % 32 != 0 || config.block > most_threads(config.kernel) ||
      shared_elements(config) * static_cast<int64_t>(sizeof(Compute<T>)) > kMaxShared) {
    return cudaErrorInvalidValue;
  }
  if (groups) {  // a row that is not split may have at most one group per team
    if (config.group_size < 1 ||
        config.split_above > static_cast<int64_t>(config.group_size) * (config.block / config.lanes)) {
      return cudaErrorInvalidValue;
    }
  } else if (!is_power_of_two(config.groups) || config.groups > 32 || config.lanes * config.groups > 32) {
    return cudaErrorInvalidValue;
  }
  if (config.vector_width > 1) {
    const int64_t n = config.vector_width;
    const bool readable = width % n == 0 || (args.x_padded && args.x_stride >= whole_packs_of(width, config));
    if (!readable || args.x_stride % n != 0 || !is_aligned(args.x, kVectorBytes) ||
        (args.weight != nullptr && args.heads > 1 && args.head_dim % n != 0)) {
      return cudaErrorInvalidValue;
    }
  }
  return cudaSuccess;
}

// Launches the kernel on all column tiles. If they exceed the limit of grid.y, it takes several launches.
template <typename P>
cudaError_t launch_tiles(void (*kernel)(P), P params, int64_t blocks, const KernelConfig& config, size_t shared,
                         cudaStream_t stream) {
  if (blocks > kMaxIndex) return cudaErrorInvalidValue;
  for (int64_t first = 0; first < params.tiles; first += kMaxGridY) {
    params.first_tile = first;
    const int64_t tiles = params.tiles - first < kMaxGridY ? params.tiles - first : kMaxGridY;
    const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(tiles));
    const cudaError_t error = launch(kernel, grid, config.block, shared, stream, params);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

template <typename T, int VW, int V, Weighting W, typename Op>
cudaError_t launch_kernel(const RowParams<T>& params, const KernelConfig& config, const Partition& partition,
                          cudaStream_t stream) {
  const auto shared = static_cast<size_t>(shared_elements(config)) * sizeof(Compute<T>);
  if (config.kernel == Kernel::Row) {
    static_assert(launch_bound(shape_of<T, VW, V, W>()) >= most_threads(Kernel::Row));
    const int64_t blocks = params.chunk_count + ceil_div(params.rows, config.block / (config.lanes * config.groups));
    return launch_tiles(spmm_row<T, VW, V, W, Op>, params, blocks, config, params.chunk_count > 0 ? shared : 0, stream);
  }
  if constexpr (V <= 2) {
    GroupParams<T> of_groups{};
    static_cast<RowParams<T>&>(of_groups) = params;
    of_groups.groups = partition.groups;
    of_groups.group_size = config.group_size;
    const int64_t blocks = params.chunk_count + ceil_div(partition.groups.count, config.block / config.lanes);
    return launch_tiles(spmm_group<T, VW, V, W, Op>, of_groups, blocks, config, shared, stream);
  }
  return cudaErrorInvalidValue;
}

template <typename T, int VW, int V, typename Op>
cudaError_t launch_weighting(const RowParams<T>& params, const KernelConfig& config, const Partition& partition,
                             cudaStream_t stream) {
  if (params.weight == nullptr) {
    return launch_kernel<T, VW, V, Weighting::None, Op>(params, config, partition, stream);
  }
  if (params.heads == 1) return launch_kernel<T, VW, V, Weighting::PerEdge, Op>(params, config, partition, stream);
  return launch_kernel<T, VW, V, Weighting::PerHead, Op>(params, config, partition, stream);
}

template <typename T, int VW, typename Op>
cudaError_t launch_vectors(const RowParams<T>& params, const KernelConfig& config, const Partition& partition,
                           cudaStream_t stream) {
  if (config.vectors == 1) return launch_weighting<T, VW, 1, Op>(params, config, partition, stream);
  if (config.vectors == 2) return launch_weighting<T, VW, 2, Op>(params, config, partition, stream);
  return launch_weighting<T, VW, 4, Op>(params, config, partition, stream);
}

// Launches the reduction Op. A mean is a sum that store_row divides by the degree.
template <typename T, typename Op>
cudaError_t spmm_op(const SpmmArgs<T>& args, const KernelConfig& config, const Partition& partition, void* scratch,
                    cudaStream_t stream) {
  const CsrView& csr = args.csr;
  const SplitRows& split_rows = partition.split_rows;
  const int64_t width = args.heads * args.head_dim;
  if (csr.rows < 0 || csr.rows > kMaxIndex || csr.edges < 0 || csr.edges > kMaxIndex || args.heads < 0 ||
      args.head_dim < 0 || split_rows.count < 0) {
    return cudaErrorInvalidValue;
  }
  if (csr.rows == 0 || width == 0) return cudaSuccess;
  if (csr.edges == 0) {
    return cudaMemsetAsync(args.out, 0, static_cast<size_t>(csr.rows) * width * sizeof(T), stream);
  }
  cudaError_t error = check_config(args, config, width);
  if (error != cudaSuccess) return error;
  if (config.kernel == Kernel::Group && (partition.groups.first == nullptr || partition.groups.row == nullptr)) {
    return cudaErrorInvalidValue;
  }

  RowParams<T> params{};
  params.rowptr = csr.rowptr;
  params.col = csr.col;
  params.order = csr.order;
  params.x = args.x;
  params.weight = args.weight;
  params.weight_index = args.weight_index;
  params.out = args.out;
  params.rows = csr.rows;
  params.width = width;
  params.partial_width = whole_packs_of(width, config);
  params.whole_packs =
      config.vector_width == 1 || (width % config.vector_width == 0 && is_aligned(args.out, kVectorBytes));
  params.x_stride = args.x_stride;
  params.heads = args.heads;
  params.head_dim = args.head_dim;
  // If there are no chunks, long rows are processed like all others.
  params.split_above = split_rows.count > 0 ? config.split_above : INT64_MAX;
  params.tiles = tiles_of(config, width);
  params.lanes_log2 = log2_of(config.lanes);
  params.groups_log2 = log2_of(config.groups);
  params.mean = args.reduce == Reduce::Mean;
  if (split_rows.count > 0) {
    if (split_rows.chunks == nullptr) return cudaErrorInvalidValue;
    params.chunks = split_rows.chunks;
    params.chunk_count = static_cast<uint32_t>(split_rows.count);
  }
  if (split_rows.needs_combining) {
    if (scratch == nullptr || !is_aligned(scratch, kVectorBytes)) return cudaErrorInvalidValue;
    const size_t partials = partials_bytes<T>(split_rows.count, params.partial_width);
    params.partials = static_cast<Compute<T>*>(scratch);
    params.counters = reinterpret_cast<int32_t*>(static_cast<unsigned char*>(scratch) + partials);
    error = cudaMemsetAsync(params.counters, 0, spmm_scratch_bytes(args, config, split_rows) - partials, stream);
    if (error != cudaSuccess) return error;
  }
  if (config.vector_width == 1) return launch_vectors<T, 1, Op>(params, config, partition, stream);
  return launch_vectors<T, kVectorWidth<T>, Op>(params, config, partition, stream);
}

#define GNNA_COMPILED_ELSEWHERE(T, Op)                                                                         \
  extern template cudaError_t spmm_op<T, Op>(const SpmmArgs<T>&, const KernelConfig&, const Partition&, void*, \
                                             cudaStream_t)
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
