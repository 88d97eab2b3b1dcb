// Maps torch's dtypes to the kernels' element types.
#pragma once

#include <ATen/core/Tensor.h>

#include "gnna/types.h"

namespace gnna {

// T must be the kernels' type of t's dtype. This is not checked, here or below.
template <typename T>
const T* const_data(const at::Tensor& t) {
  return static_cast<const T*>(t.const_data_ptr());
}

template <typename T>
T* mutable_data(const at::Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

inline bool is_supported(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16;
}

// The dtype in which kernels compute and accumulate for features of this dtype.
inline at::ScalarType compute_dtype(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

// Calls body(T{}), where T is the kernels' type of dtype. dtype must be one that is_supported accepts.
template <typename Body>
void for_dtype(at::ScalarType dtype, const Body& body) {
  switch (dtype) {
    case at::kDouble:
      return body(double{});
    case at::kHalf:
      return body(Float16{});
    case at::kBFloat16:
      return body(BFloat16{});
    default:
      return body(float{});
  }
}

}  // namespace gnna
