// Runs the tasks of csrc/cpu on torch's intra-op threads.
#pragma once

#include <ATen/Parallel.h>

#include "gnna/cpu_api.h"

namespace gnna {

inline cpu::Executor cpu_executor() {
  return {at::get_num_threads(), [](int64_t tasks, const std::function<void(int64_t)>& body) {
            at::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
              for (int64_t task = begin; task < end; ++task) body(task);
            });
          }};
}

}  // namespace gnna
