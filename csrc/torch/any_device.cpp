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
#include <utility>

#include "dtypes.h"
#include "plan.h"
#include "streams.h"

namespace gnna {
namespace {

struct Before {
  template <typename Key>
  bool operator()(const Key& a, const Key& b) const {
    const auto order = [](const Key& k) { return std::make_tuple(k.first.type(), k.first.index(), k.second); };
    return order(a) < order(b);
  }
};

at::Tensor mean_divisor(const at::Tensor& like, const std::optional<at::Tensor>& src, const at::Tensor& dst,
                        int64_t num_src, int64_t num_dst, bool cache) {
  const c10::OptionalDeviceGuard guard(dst.device());
  const auto plan =
      src.has_value() ? plan_for(dst, *src, num_dst, num_src, "dst", "src", cache) : segments_for(dst, num_dst, cache);
  for (const at::Tensor* t : {&plan->rowptr, &plan->order}) record_use(*t);
  return plan->degrees().clamp_min_(1).to(compute_dtype(like.scalar_type()));
}

// One NaN, written once per device and type, since a kernel for every layer's call would cost more than the rest of it.
at::Tensor one_nan(const at::Tensor& like) {
  static std::mutex mutex;
  static auto* const known = new std::map<std::pair<c10::Device, at::ScalarType>, at::Tensor, Before>;
  const std::lock_guard<std::mutex> lock(mutex);
  const std::pair<c10::Device, at::ScalarType> key{like.device(), like.scalar_type()};
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
