// Features copied into rows that can be read by whole loads of 16 bytes: a thread writes one of them, from elements
// read one by one. Per row: width elements read, padded elements written.
#include "gnna/cuda_api.h"
#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

namespace {

constexpr int kBlock = 256;

template <typename T>
struct alignas(kVectorBytes) Whole {
  T v[kVectorWidth<T>];
};

template <typename T>
__global__ void __launch_bounds__(kBlock)
    pad(const T* x, int64_t stride, int64_t wholes, uint32_t wholes_a_row, int width, Whole<T>* out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (i >= wholes) return;
  // 64-bit division is an order of magnitude slower.
  const int64_t row = wholes <= UINT32_MAX ? static_cast<uint32_t>(i) / wholes_a_row : i / wholes_a_row;
  const int column = static_cast<int>(i - row * wholes_a_row) * kVectorWidth<T>;
  Whole<T> whole{};
#pragma unroll
  for (int k = 0; k < kVectorWidth<T>; ++k) {
    if (column + k < width) whole.v[k] = x[row * stride + column + k];
  }
  out[i] = whole;
}

}  // namespace

template <typename T>
cudaError_t pad_rows(const T* x, int64_t stride, int64_t rows, int64_t width, int64_t padded, T* out,
                     cudaStream_t stream) {
  if (rows < 0 || width < 0 || width > padded || padded > kMaxIndex || padded % kVectorWidth<T> != 0 ||
      !is_aligned(out, kVectorBytes)) {
    return cudaErrorInvalidValue;
  }
  const int64_t wholes_a_row = padded / kVectorWidth<T>, wholes = rows * wholes_a_row;
  const int64_t blocks = ceil_div(wholes, kBlock);
  if (blocks > kMaxIndex) return cudaErrorInvalidValue;
  if (blocks == 0) return cudaSuccess;
  return launch(pad<T>, static_cast<unsigned>(blocks), kBlock, 0, stream, x, stride, wholes,
                static_cast<uint32_t>(wholes_a_row), static_cast<int>(width), reinterpret_cast<Whole<T>*>(out));
}

#define GNNA_INSTANTIATE(T) \
  template cudaError_t pad_rows(const T*, int64_t, int64_t, int64_t, int64_t, T*, cudaStream_t)
GNNA_FOR_EACH_TYPE(GNNA_INSTANTIATE);
#undef GNNA_INSTANTIATE

}  // namespace gnna::cuda
