// C entry points for the kernels of GE-SpMM and RoDe. research.py compiles this file and defines the paths of the
// included sources: GE_SPMM is a file with the kernels of GE-SpMM's spmm_test.cu, RODE is RoDe's RoDeSpmm.cu.
// Each function launches on the given streams and returns the CUDA error of the launch. All pointers are device memory.
#include <cuda_runtime.h>

#include GE_SPMM
#include RODE

extern "C" {

// way: 1, 2 or 3 selects the kernel whose warps compute 32, 64 or 128 columns of a row. Blocks of 8 warps, as in
// GE-SpMM's own test.
int ge_spmm(int way, int rows, int width, int* rowptr, int* col, float* values, float* x, float* out,
            cudaStream_t stream) {
  constexpr int kRows = 8;
  const auto launch = [&](auto* kernel) {
    const int columns = 16 << way;
    const dim3 grid((rows + kRows - 1) / kRows, (width + columns - 1) / columns);
    kernel<<<grid, dim3(32, kRows), 32 * kRows * 8, stream>>>(rows, width, rowptr, col, values, x, out);
  };
  if (way == 1) launch(spmm_test1<float>);
  if (way == 2) launch(spmm_test2<float>);
  if (way == 3) launch(spmm_test3<float>);
  return cudaGetLastError();
}

// Adds to out. wide selects the kernels for widths that are a multiple of 64. Full parts, given by part_row and
// part_start, run on stream `one`. The rests of the rows in rest_row run on stream `other`.
int rode(int wide, int parts, int rests, int cols, int width, float* values, int* col, int* rowptr, int* part_row,
         int* rest_row, int* part_start, float* x, float* out, cudaStream_t one, cudaStream_t other) {
  const auto launch = [&](auto* run) {
    run(parts, rests, cols, width, values, col, rowptr, part_row, rest_row, part_start, x, out, one, other);
  };
  using Run = void(int, int, int, int, const float*, const int*, const int*, const int*, const int*, const int*,
                   const float*, float*, cudaStream_t, cudaStream_t);
  launch(wide ? static_cast<Run*>(RoDeSpmm_n128) : static_cast<Run*>(RoDeSpmm_n32));
  return cudaGetLastError();
}

}  // extern "C"
