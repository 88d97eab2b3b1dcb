// C entry points around the kernels of GE-SpMM and RoDe, compiled by research.py from their own sources, which it names:
// GE_SPMM is a file with the kernels of spmm_test.cu, RODE is RoDeSpmm.cu. They return the launch's error.
#include <cuda_runtime.h>

#include GE_SPMM
#include RODE

extern "C" {

// way: one of three kernels, whose warps take 32, 64 or 128 columns of a row; blocks of 8 warps, as in their test.
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

// Adds to out. Full parts (their row, their first slot) run on one stream, the rows' rests on the other.
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
