// The ops whose code is the same on every device: what a mean divides by, and the stand-in for messages that were not
// gathered.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/InferenceMode.h>
#include <torch/library.h>

#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "dtypes.h"
#include "plan.h"
#include "streams.h"

namespace gnna {
namespace {

at::Tensor mean_divisor(const at::Tensor& like, const std::optional<at::Tensor>& src, const at::Tensor& dst,
                        int64_t num_src, int64_t num_dst, bool cache) {
  const c10::OptionalDeviceGuard guard(dst.device());
  const auto plan = src.has_value() ? plan_for(dst, *src, num_dst, num_src, "dst", "src", cache, /*edge_ids=*/false)
                                    : segments_for(dst, num_dst, cache);
  for (const at::Tensor* t : {&plan->rowptr, &plan->order}) record_use(*t);
  return plan->degrees().clamp_min_(1).to(compute_dtype(like.scalar_type()));
}

// One NaN, written once per device and type, since a kernel for every layer's call would cost more than the rest of it.
at::Tensor one_nan(const at::Tensor& like) {
  static std::mutex mutex;
  using Key = std::tuple<c10::DeviceType, c10::DeviceIndex, at::ScalarType>;
  static auto* const known = new std::map<Key, at::Tensor>;  // never destroyed: CUDA is gone before it would be
  const std::lock_guard<std::mutex> lock(mutex);
  const Key key{like.device().type(), like.device().index(), like.scalar_type()};
  const auto found = known->find(key);
  if (found != known->end()) return found->second;
  const c10::InferenceMode normal(false);
  const at::Tensor made = at::full({1}, std::numeric_limits<double>::quiet_NaN(), like.options());
  if (!capturing_on(like.device())) known->emplace(key, made);  // a captured graph's memory is its own
  return made;
}

at::Tensor lift(const at::Tensor& x, const std::optional<at::Tensor>&, const at::Tensor& src) {
  at::DimVector sizes(x.sizes());
  sizes[0] = src.numel();
  return one_nan(x).expand(sizes);
}

TORCH_LIBRARY_IMPL(gnna, CPU, m) {
  m.impl("mean_divisor", &mean_divisor);
  m.impl("lift", &lift);
}

TORCH_LIBRARY_IMPL(gnna, CUDA, m) {
  m.impl("mean_divisor", &mean_divisor);
  m.impl("lift", &lift);
}

}  // namespace
}  // namespace gnna
