// The checksum of a list on the device and its comparison with an earlier one, without synchronising the host.
#include "gnna/cuda_api.h"
#include "gnna/edge_hash.h"
#include "gnna/launch.cuh"

namespace gnna::cuda {
namespace {

constexpr int kBlock = 256;
constexpr int64_t kMaxBlocks = 512;  // leaves room for the kernels that use the list meanwhile

// Sums element_hash(position, element) modulo 2^64, which does not depend on the order of the additions. The last block
// compares the total with state->expected, or stores it there. It resets sum and ticket to 0 for the next call.
template <typename Id>
__global__ void __launch_bounds__(kBlock)
    checksum_of(const Id* list, int64_t elements, int64_t stride, ChecksumState* state, int* differs) {
  unsigned long long mine = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x; i < elements;
       i += static_cast<int64_t>(gridDim.x) * kBlock) {
    mine += element_hash(static_cast<uint64_t>(i), static_cast<uint64_t>(__ldg(list + i * stride)));
  }
  __syncwarp();
  for (int offset = 16; offset > 0; offset /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, offset);
  if ((threadIdx.x & 31) == 0) {
    atomicAdd(&state->sum, mine);
    __threadfence();
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (atomicAdd(&state->ticket, 1u) != gridDim.x - 1) return;
  const unsigned long long total = atomicAdd(&state->sum, 0ull);
  state->sum = 0;
  state->ticket = 0;
  if (differs == nullptr) {
    state->expected = total;
  } else if (total != state->expected) {
    *static_cast<volatile int*>(differs) = 1;
  }
}

}  // namespace

template <typename Id>
cudaError_t checksum(const Id* list, int64_t elements, int64_t stride, ChecksumState* state, int* differs,
                     cudaStream_t stream) {
  return launch(checksum_of<Id>, stride_blocks(elements, kBlock, kMaxBlocks), kBlock, 0, stream, list, elements, stride,
                state, differs);
}

template cudaError_t checksum<int16_t>(const int16_t*, int64_t, int64_t, ChecksumState*, int*, cudaStream_t);
template cudaError_t checksum<int32_t>(const int32_t*, int64_t, int64_t, ChecksumState*, int*, cudaStream_t);
template cudaError_t checksum<int64_t>(const int64_t*, int64_t, int64_t, ChecksumState*, int*, cudaStream_t);

}  // namespace gnna::cuda
