// Copies features into rows that can be read in 16-byte loads only. A warp copies kRows rows at a time, with
// neighbouring lanes on neighbouring elements. Memory per row: `width` elements read, `padded` elements written.
#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 256, kRows = 4;  // kRows: rows that a warp copies at once, with their loads in flight together

template <typename T>
__global__ void __launch_bounds__(kBlock)
    pad(const T* x, int64_t stride, int64_t rows, uint32_t width, uint32_t padded, T* out) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * (kBlock / 32) + (threadIdx.x >> 5)) * kRows;
  for (uint32_t column = threadIdx.x & 31; column < padded; column += 32) {
    T element[kRows];
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      element[k] = T{};
      if (column < width && first + k < rows) element[k] = load_one(x + (first + k) * stride + column);
    }
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      if (first + k < rows) out[(first + k) * padded + column] = element[k];
    }
  }
}

}  // namespace

template <typename T>
cudaError_t pad_rows(const T* x, int64_t stride, int64_t rows, int64_t width, int64_t padded, T* out,
                     cudaStream_t stream) {
  if (rows < 0 || width < 0 || width > padded || padded > kMaxIndex || padded % kVectorWidth<T> != 0 ||
      !is_aligned(out, kVectorBytes)) {
    return cudaErrorInvalidValue;
  }
  const int64_t blocks = ceil_div(rows, kBlock / 32 * kRows);
  if (blocks > kMaxIndex) return cudaErrorInvalidValue;
  if (blocks == 0 || padded == 0) return cudaSuccess;
  if constexpr (sizeof(T) == 2) {  // copy two elements at a time if sizes and alignment allow it
    if (width % 2 == 0 && stride % 2 == 0 && is_aligned(x, 4)) {
      return pad_rows(reinterpret_cast<const float*>(x), stride / 2, rows, width / 2, padded / 2,
                      reinterpret_cast<float*>(out), stream);
    }
  }
  return launch(pad<T>, static_cast<unsigned>(blocks), kBlock, 0, stream, x, stride, rows, static_cast<uint32_t>(width),
                static_cast<uint32_t>(padded), out);
}

#define GNNA_INSTANTIATE(T) \
  template cudaError_t pad_rows(const T*, int64_t, int64_t, int64_t, int64_t, T*, cudaStream_t)
GNNA_FOR_EACH_TYPE(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
