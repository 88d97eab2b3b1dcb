// The decider as ops that need no device: what it would decide, what it has to keep to, and the facts it reads.
#include "gnna/decide.h"

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <string>
#include <vector>

#include "common/arguments.h"
#include "common/overrides.h"
#include "gnna/cpu_api.h"
#include "plan/plan.h"

namespace gnna {
namespace {

// kernel, lanes, groups, group_size, vector_width, vectors, block, split_above, chunk_edges, as manual_of reads them
// and the launches use them; the reason, and the runner-up.
std::tuple<std::vector<int64_t>, std::string, std::string> decide_op(int64_t rows, int64_t cols, int64_t edges,
                                                                     int64_t max_degree, int64_t width,
                                                                     int64_t head_dim, int64_t itemsize, bool weighted,
                                                                     bool aligned, const std::string& reduce, bool cuda,
                                                                     int64_t processors, int64_t l2_bytes,
                                                                     int64_t bandwidth, at::IntArrayRef manual) {
  const Decision decision =
      decide({rows, cols, edges, max_degree}, {width, head_dim, itemsize, weighted, aligned, parse_reduce(reduce)},
             {cuda, processors, l2_bytes, bandwidth}, manual_of(manual));
  const KernelConfig& c = decision.config;
  return {{static_cast<int64_t>(c.kernel), c.lanes, c.groups, c.group_size, c.vector_width, c.vectors, c.block,
           c.split_above, c.chunk_edges},
          decision.reason,
          decision.runner_up};
}

std::string instruction_set_op() { return cpu::instruction_set(); }

// max_degree of a plan that is in use, for whoever explains a decision.
int64_t max_degree_op(const at::Tensor& src, const at::Tensor& dst, int64_t num_src, int64_t num_dst) {
  const c10::OptionalDeviceGuard guard(src.device());
  return plan_for(dst, src, num_dst, num_src, "dst", "src", true, /*edge_ids=*/false)->max_degree;
}

int64_t l2_bytes(at::Device device) { return facts_of(device).l2_bytes; }
int64_t memory_bandwidth(at::Device device) { return facts_of(device).bandwidth; }

TORCH_LIBRARY_IMPL(gnna, CompositeImplicitAutograd, m) {
  m.impl("decide", &decide_op);
  m.impl("max_degree", &max_degree_op);
  m.impl("set_manual", &set_manual);
  m.impl("set_tuned", &set_tuned);
  m.impl("clear_tuned", &clear_tuned);
  m.impl("instruction_set", &instruction_set_op);
  m.impl("l2_bytes", &l2_bytes);
  m.impl("memory_bandwidth", &memory_bandwidth);
}

}  // namespace
}  // namespace gnna
