// The kernels of one instruction set as function pointers. Each call processes the rows at places [begin_place,
// end_place) of the schedule (CsrView). kernels_avx512.cpp, kernels_avx2.cpp and kernels_generic.cpp each fill one
// table from the templates of row_kernels.inl. kernels.cpp selects the best table that the processor supports.
#pragma once

#include "gnna/types.h"

namespace gnna::cpu {

template <typename T>
struct KernelTable {
  void (*spmm)(const SpmmArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*spmm_arg)(const SpmmArgs<T>&, bool last, int32_t* arg, int64_t begin_place, int64_t end_place);
  void (*sddmm)(const SddmmArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*extremum_share)(const CsrView&, const ExtremumArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*extremum_grad_x)(const CsrView&, const ExtremumArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*extremum_grad_weight)(const CsrView&, const ExtremumArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*segment_softmax)(const SegmentSoftmaxArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*segment_softmax_backward)(const SegmentSoftmaxBackwardArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*pair_reduce)(const PairArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*pair_dot)(const PairArgs<T>&, int64_t begin_place, int64_t end_place);
  void (*pair_map)(const int64_t* src, const int64_t* dst, const PairArgs<T>&, int64_t begin_edge, int64_t end_edge);
};

struct Kernels {
  const char* name;
  KernelTable<float> f32;
  KernelTable<double> f64;
  KernelTable<Float16> f16;
  KernelTable<BFloat16> bf16;
};

extern const Kernels kGenericKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

}  // namespace gnna::cpu
