// Kernels that test the emulation: a correct one, and kernels with one mistake each. A mistake must end the process or
// give different bits under different schedules.
#include "self_test.h"

#include "gnna/launch.cuh"

// simt.cpp defines shared_bytes in this namespace. The kernels must not be in an unnamed namespace, because their
// extern declarations would then name another variable.
namespace gnna::cuda {

constexpr unsigned kAll = 0xffffffffu;

// Sums the thread numbers of a grid by shuffles, shared memory and an atomic.
static __global__ void correct(unsigned* result) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  auto* sums = reinterpret_cast<unsigned*>(shared_bytes);
  unsigned sum = blockIdx.x * blockDim.x + threadIdx.x;
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(kAll, sum, offset);
  if ((threadIdx.x & 31) == 0) sums[threadIdx.x >> 5] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (unsigned warp = 1; warp < blockDim.x >> 5; ++warp) sum += sums[warp];
  atomicAdd(result, sum);
}

static __global__ void half_a_warp_shuffles(unsigned* result) {
  unsigned value = threadIdx.x;
  if (threadIdx.x < 16) value = __shfl_xor_sync(kAll, value, 1);
  if (threadIdx.x == 0) *result = value;
}

static __global__ void warp_disagrees(unsigned* result) {
  if (threadIdx.x < 16) {
    __syncwarp();
  } else if (__any_sync(kAll, 1)) {
    *result = 1;
  }
}

static __global__ void some_miss_the_barrier(unsigned*) {
  if (threadIdx.x < 40) __syncthreads();
}

static __global__ void some_left_before_the_barrier(unsigned*) {
  if (threadIdx.x == 7) return;
  __syncthreads();
}

static __global__ void no_barrier(unsigned* result) {
  __shared__ unsigned word;
  if (threadIdx.x == 0) word = blockIdx.x + 1;
  if (threadIdx.x == 33) atomicAdd(result, word);
}

// The last block reads what other blocks stored. Without a barrier, thread 0 may signal its block's arrival before the
// other threads of the block have stored.
static __global__ void no_barrier_before_arrival(unsigned* result) {
  __shared__ bool is_last;
  result[2 + blockIdx.x * blockDim.x + threadIdx.x] = 1;
  if (threadIdx.x == 0) is_last = atomicAdd(result + 1, 1u) == gridDim.x - 1;
  __syncthreads();
  if (is_last) atomicAdd(result, result[2 + (gridDim.x - 1 - blockIdx.x) * blockDim.x + threadIdx.x]);
}

static __global__ void past_the_shared_memory(unsigned* result) {
  extern __shared__ __align__(16) unsigned char shared_bytes[];
  *result = shared_bytes[blockDim.x];
}

static __global__ void past_the_end(unsigned* result) { result[threadIdx.x * 1000] = 1; }

}  // namespace gnna::cuda

namespace simt {

int64_t self_test(int64_t which) {
  using namespace gnna::cuda;
  constexpr unsigned kBlocks = 5, kBlock = 64;
  void (*const kernels[])(unsigned*) = {correct, half_a_warp_shuffles, warp_disagrees, some_miss_the_barrier,
                                        some_left_before_the_barrier, no_barrier, no_barrier_before_arrival,
                                        past_the_shared_memory, past_the_end};
  auto* result = new unsigned[2 + kBlocks * kBlock]();
  const size_t shared = kernels[which] == correct ? kBlock / 32 * sizeof(unsigned) : kBlock;
  if (gnna::cuda::launch(kernels[which], kBlocks, kBlock, shared, nullptr, result) != cudaSuccess) return -1;
  const int64_t value = *result;
  delete[] result;
  return value;
}

}  // namespace simt
