// The framework's own threads, as csrc/cpu wants them.
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
