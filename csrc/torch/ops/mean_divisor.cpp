// mean_divisor: max(degree, 1) of every row of a plan, the divisor of a mean.
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "common/dtypes.h"
#include "common/streams.h"
#include "plan/cache.h"

namespace gnna {
namespace {

at::Tensor mean_divisor(const at::Tensor& like, const std::optional<at::Tensor>& src, const at::Tensor& dst,
                        int64_t num_src, int64_t num_dst, bool cache) {
  const c10::OptionalDeviceGuard guard(dst.device());
  const auto plan = src.has_value() ? plan_for(dst, *src, num_dst, num_src, "dst", "src", cache, /*edge_ids=*/false)
                                    : segment_plan_for(dst, num_dst, cache);
  for (const at::Tensor* t : {&plan->rowptr, &plan->order}) record_use(*t);
  return plan->degrees(compute_dtype(like.scalar_type())).clamp_min_(1);
}

TORCH_LIBRARY_IMPL(gnna, CPU, m) { m.impl("mean_divisor", &mean_divisor); }
TORCH_LIBRARY_IMPL(gnna, CUDA, m) { m.impl("mean_divisor", &mean_divisor); }
TORCH_LIBRARY_IMPL(gnna, Autograd, m) {
  m.impl("mean_divisor", torch::CppFunction::makeFallthrough());  // depends on integers only, so it has no derivative
}

}  // namespace
}  // namespace gnna
