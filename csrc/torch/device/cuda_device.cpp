// CUDA as a device of the ops (ops/spmm.h): how its plans are built on the GPU, and its kernels, launched on the
// current stream with the decider's configuration. The kernels themselves are torch-free (gnna/cuda_api.h); memory
// comes from torch's allocator.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/library.h>

#include <vector>

#include "common/decisions.h"
#include "device/cuda_partition.h"
#include "device/cuda_timer.h"
#include "ops/extremum_backward.h"
#include "ops/gather.h"
#include "ops/pair.h"
#include "ops/sddmm.h"
#include "ops/segment_reduce.h"
#include "ops/segment_softmax.h"
#include "ops/spmm.h"
#include "plan/builder.h"

namespace gnna {
namespace {

DeviceFacts device_facts() {
  static thread_local std::vector<DeviceFacts> known;
  const auto device = static_cast<size_t>(c10::cuda::current_device());
  if (known.size() <= device) known.resize(device + 1);
  DeviceFacts& facts = known[device];
  if (!facts.cuda) {
    int processors = 0, l2 = 0;
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, static_cast<int>(device)));
    C10_CUDA_CHECK(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, static_cast<int>(device)));
    facts = {true, processors, l2};
  }
  return facts;
}

void check_ids(const EdgeCheck& check, const at::Tensor& row, const at::Tensor& col, const Plan& plan,
               const char* row_name, const char* col_name) {
  if (check.bad_col >= 0) throw_bad_index(col_name, check.bad_col, col[check.bad_col].item<int64_t>(), plan.cols);
  if (check.bad_row >= 0) throw_bad_index(row_name, check.bad_row, row[check.bad_row].item<int64_t>(), plan.rows);
}

// This thread's summary in pinned memory, which kernels write to. Never freed, because CUDA shuts down before threads'
// variables are destroyed.
cuda::EdgeSummary* pinned_summary() {
  static thread_local auto* const memory = new at::Tensor(at::empty(
      {static_cast<int64_t>(sizeof(cuda::EdgeSummary))}, at::TensorOptions().dtype(at::kByte).pinned_memory(true)));
  return static_cast<cuda::EdgeSummary*>(memory->mutable_data_ptr());
}

// Builds the plan of a small list. Returns false if its largest degree does not allow that.
template <typename Id>
bool build_small(const at::Tensor& row, const at::Tensor& col, Plan& plan, const char* row_name, const char* col_name,
                 cudaStream_t stream) {
  const auto longs = row.options().dtype(at::kLong), ints = row.options().dtype(at::kInt);
  plan.rowptr = at::empty({plan.rows + 1}, longs);
  plan.col = at::empty({plan.edges}, ints);
  plan.perm = at::empty({plan.edges}, ints);
  const at::Tensor workspace = bytes_on(row, cuda::count_csr_workspace(plan.edges, plan.rows));
  cuda::EdgeSummary* const summary = pinned_summary();
  C10_CUDA_CHECK(cuda::count_csr(row.const_data_ptr<Id>(), col.const_data_ptr<Id>(), plan.edges, plan.rows, plan.cols,
                                 plan.rowptr.mutable_data_ptr<int64_t>(), plan.col.mutable_data_ptr<int32_t>(),
                                 plan.perm.mutable_data_ptr<int32_t>(), workspace.mutable_data_ptr(), summary, stream));
  C10_CUDA_CHECK(cudaStreamSynchronize(stream));
  check_ids(summary->check, row, col, plan, row_name, col_name);
  if (!summary->fits) return false;
  if (summary->check.unsorted == 0) plan.perm.reset();
  plan.max_degree = summary->max_degree;
  plan.symmetric = plan.rows == plan.cols && summary->symmetric;
  return true;
}

template <typename Id>
void build_typed(const at::Tensor& row, const at::Tensor& col, Plan& plan, const char* row_name, const char* col_name,
                 cudaStream_t stream) {
  if (cuda::can_count_csr(plan.edges, plan.rows) && build_small<Id>(row, col, plan, row_name, col_name, stream)) return;
  const Id* rows = row.const_data_ptr<Id>();
  const Id* cols = col.const_data_ptr<Id>();
  const auto longs = row.options().dtype(at::kLong), ints = row.options().dtype(at::kInt);
  const at::Tensor found = at::empty({3}, longs);
  C10_CUDA_CHECK(cuda::check_edges(rows, cols, plan.edges, plan.rows, plan.cols,
                                   reinterpret_cast<EdgeCheck*>(found.mutable_data_ptr()), stream));
  const at::Tensor on_host = found.cpu();
  const auto& check = *reinterpret_cast<const EdgeCheck*>(on_host.const_data_ptr());
  check_ids(check, row, col, plan, row_name, col_name);

  const bool sorted = check.unsorted == 0;
  plan.rowptr = at::empty({plan.rows + 1}, longs);
  plan.col = at::empty({plan.edges}, ints);
  plan.perm = sorted ? at::Tensor() : at::empty({plan.edges}, ints);
  const at::Tensor workspace = bytes_on(row, cuda::build_csr_workspace<Id>(plan.edges, plan.rows, sorted));
  C10_CUDA_CHECK(cuda::build_csr(rows, cols, plan.edges, plan.rows, sorted, plan.rowptr.mutable_data_ptr<int64_t>(),
                                 plan.col.mutable_data_ptr<int32_t>(),
                                 sorted ? nullptr : plan.perm.mutable_data_ptr<int32_t>(), workspace.mutable_data_ptr(),
                                 static_cast<size_t>(workspace.numel()), stream));
  const at::Tensor largest = at::empty({1}, longs);
  C10_CUDA_CHECK(
      cuda::max_degree(plan.rowptr.const_data_ptr<int64_t>(), plan.rows, largest.mutable_data_ptr<int64_t>(), stream));
  plan.max_degree = largest.item<int64_t>();
  // The reads have waited for most of this already. Waiting for the rest makes the plan safe on every stream.
  C10_CUDA_CHECK(cudaStreamSynchronize(stream));
}

std::shared_ptr<Plan> build_plan(const at::Tensor& row, const at::Tensor& col, int64_t rows, int64_t cols,
                                 const char* row_name, const char* col_name) {
  const c10::cuda::CUDAGuard guard(row.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  auto plan = std::make_shared<Plan>();
  plan->rows = rows;
  plan->cols = cols;
  plan->edges = row.numel();
  plan->stream_id = stream.id();
  const at::Tensor r = row.contiguous(), c = col.contiguous();
  if (r.scalar_type() == at::kInt) {
    build_typed<int32_t>(r, c, *plan, row_name, col_name, stream);
  } else {
    build_typed<int64_t>(r, c, *plan, row_name, col_name, stream);
  }
  return plan;
}

bool symmetric(const at::Tensor& row, const at::Tensor& col) {
  const c10::cuda::CUDAGuard guard(row.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  const at::Tensor sum = at::empty({1}, row.options().dtype(at::kLong));
  auto* const to = reinterpret_cast<uint64_t*>(sum.mutable_data_ptr<int64_t>());
  const at::Tensor r = row.contiguous(), c = col.contiguous();
  if (r.scalar_type() == at::kInt) {
    C10_CUDA_CHECK(cuda::reversal_sum(r.const_data_ptr<int32_t>(), c.const_data_ptr<int32_t>(), r.numel(), to, stream));
  } else {
    C10_CUDA_CHECK(cuda::reversal_sum(r.const_data_ptr<int64_t>(), c.const_data_ptr<int64_t>(), r.numel(), to, stream));
  }
  return sum.item<int64_t>() == 0;
}

std::shared_ptr<Plan> rearrange(const Plan& plan, const at::Tensor& places) {
  const c10::cuda::CUDAGuard guard(plan.rowptr.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  auto scheduled = plan.with_empty_lists();
  scheduled->stream_id = stream.id();
  const at::Tensor scan = bytes_on(plan.rowptr, cuda::partition_scan_bytes(plan.rows));
  C10_CUDA_CHECK(
      cuda::schedule_csr(plan.view(), places.const_data_ptr<int32_t>(), scheduled->rowptr.mutable_data_ptr<int64_t>(),
                         scheduled->col.mutable_data_ptr<int32_t>(), scheduled->perm.mutable_data_ptr<int32_t>(),
                         scan.mutable_data_ptr(), static_cast<size_t>(scan.numel()), stream));
  build_same_partitions(plan, *scheduled, stream);
  C10_CUDA_CHECK(cudaStreamSynchronize(stream));  // as build_plan: from here on it is safe on every stream
  return scheduled;
}

DeviceFacts cuda_facts(at::Device device) {
  const c10::cuda::CUDAGuard guard(device);
  return device_facts();
}

bool launchable(const Plan& plan) {
  const c10::cuda::CUDAGuard guard(plan.rowptr.device());
  return has_partition(plan, split_of(plan.facts(), device_facts()));
}

const bool registered = (register_plan_builder(c10::DeviceType::CUDA,
                                               {build_plan, capturing, rearrange, cuda_facts, launchable, symmetric}),
                         true);

void use_on(const Plan& plan, c10::cuda::CUDAStream stream) {
  for (const at::Tensor* t : {&plan.rowptr, &plan.col, &plan.perm, &plan.order})
    use_tensor_on(*t, plan.stream_id, stream);
}

// The split rows of a plan for an operation other than spmm, in the row kernel's chunks, with scratch memory.
struct TaskSplit {
  std::shared_ptr<const KeptPartition> kept;
  cuda::SplitRows split_rows;
  at::Tensor memory;

  template <typename T>
  static TaskSplit of(const Plan& plan, int64_t width, c10::cuda::CUDAStream stream) {
    TaskSplit split;
    split.kept = partition_for(plan, split_of(plan.facts(), device_facts()), stream);
    split.split_rows = view_of(*split.kept).split_rows;
    const size_t bytes = cuda::task_scratch_bytes<T>(split.split_rows, width);
    if (bytes > 0) split.memory = bytes_on(plan.rowptr, bytes);
    return split;
  }
  void* scratch() const { return memory.defined() ? memory.mutable_data_ptr() : nullptr; }
};

struct Cuda {
  using Guard = c10::cuda::CUDAGuard;

  template <typename T>
  static void spmm(const Plan& plan, const SpmmArgs<T>& args, at::Tensor& out) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    use_on(plan, stream);
    const int64_t width = args.heads * args.head_dim;
    const LayerFacts layer = layer_facts(args);
    const KernelConfig config = decide_launch(plan.facts(), layer, device_facts()).config;
    SpmmArgs<T> readable = args;
    at::Tensor copy;
    if (config.vector_width > 1 && (!layer.aligned || width % config.vector_width != 0)) {
      readable.x_stride = (width + config.vector_width - 1) / config.vector_width * config.vector_width;
      copy = at::empty({plan.cols, readable.x_stride}, out.options());
      C10_CUDA_CHECK(
          cuda::pad_rows(args.x, args.x_stride, plan.cols, width, readable.x_stride, mutable_data<T>(copy), stream));
      readable.x = const_data<T>(copy);
      readable.x_padded = true;
    }
    const auto kept = partition_for(plan, config, stream);
    const cuda::Partition partition = view_of(*kept);
    at::Tensor scratch;
    if (partition.split_rows.needs_combining)
      scratch = bytes_on(out, cuda::spmm_scratch_bytes(readable, config, partition.split_rows));
    const CudaTimer timer(plan.usage, kind_of(args), stream);
    C10_CUDA_CHECK(
        cuda::spmm(readable, config, partition, scratch.defined() ? scratch.mutable_data_ptr() : nullptr, stream));
  }

  template <typename T>
  static void spmm_arg(const Plan& plan, const SpmmArgs<T>& args, bool last, int32_t* arg) {
    TORCH_CHECK_NOT_IMPLEMENTED(!last,
                                "spmm_arg was called with last=True on CUDA; only last=False is implemented "
                                "there, by which the first of equal edges wins; pass last=False");
    const auto stream = c10::cuda::getCurrentCUDAStream();
    use_on(plan, stream);
    const auto split = TaskSplit::of<T>(plan, args.heads * args.head_dim, stream);
    C10_CUDA_CHECK(cuda::spmm_arg(args, arg, split.split_rows, split.scratch(), stream));
  }

  template <typename T>
  static void sddmm(const SddmmArgs<T>& args, const at::Tensor& src, const at::Tensor& dst) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    for_ids(src, dst, [&](const auto* s, const auto* d) { C10_CUDA_CHECK(cuda::sddmm(s, d, args, stream)); });
  }

  template <typename T>
  static void extremum(const Plan& forward, const Plan& transposed, const ExtremumArgs<T>& args, const at::Tensor& src,
                       const at::Tensor& dst) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    use_on(forward, stream);
    use_on(transposed, stream);
    const int64_t width = args.heads * args.head_dim;
    const auto by_target = TaskSplit::of<T>(forward, width, stream),
               by_source = TaskSplit::of<T>(transposed, width, stream);
    C10_CUDA_CHECK(cuda::extremum_share(forward.view(), args, by_target.split_rows, by_target.scratch(), stream));
    C10_CUDA_CHECK(cuda::extremum_grad_x(transposed.view(), args, by_source.split_rows, by_source.scratch(), stream));
    if (args.grad_weight == nullptr) return;
    for_ids(src, dst, [&](const auto* s, const auto* d) {
      C10_CUDA_CHECK(cuda::extremum_grad_weight(s, d, src.numel(), args, stream));
    });
  }

  static constexpr bool kGathersUnchecked = true;
  static void gather_rows(const at::Tensor& x, const at::Tensor& index, at::Tensor& out) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    const int64_t row_bytes = out.numel() / index.numel() * static_cast<int64_t>(out.element_size());
    for_ids(index, index, [&](const auto* ids, const auto*) {
      C10_CUDA_CHECK(
          cuda::gather_rows(x.const_data_ptr(), ids, index.numel(), row_bytes, out.mutable_data_ptr(), stream));
    });
  }

  template <typename T>
  static void segment_softmax(const Plan& plan, const SegmentSoftmaxArgs<T>& args, const at::Tensor& index) {
    softmax_by_totals(plan, args, index, [](auto... given) { return cuda::segment_softmax(given...); });
  }

  template <typename T>
  static void segment_softmax_backward(const Plan& plan, const SegmentSoftmaxBackwardArgs<T>& args,
                                       const at::Tensor& index) {
    softmax_by_totals(plan, args, index, [](auto... given) { return cuda::segment_softmax_backward(given...); });
  }

  template <typename T>
  static void pair_reduce(const Plan& plan, const PairArgs<T>& args) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    use_on(plan, stream);
    const auto split = TaskSplit::of<T>(plan, args.width(), stream);
    C10_CUDA_CHECK(cuda::pair_reduce(args, split.split_rows, split.scratch(), stream));
  }

  template <typename T>
  static void pair_dot(const PairArgs<T>& args, const at::Tensor& src, const at::Tensor& dst) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    for_ids(src, dst, [&](const auto* s, const auto* d) { C10_CUDA_CHECK(cuda::pair_dot(s, d, args, stream)); });
  }

  template <typename T>
  static void pair_map(const PairArgs<T>& args, const at::Tensor& src, const at::Tensor& dst) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    for_ids(src, dst, [&](const auto* s, const auto* d) { C10_CUDA_CHECK(cuda::pair_map(s, d, args, stream)); });
  }

 private:
  template <template <typename> typename Args, typename T, typename Run>
  static void softmax_by_totals(const Plan& plan, const Args<T>& args, const at::Tensor& index, const Run& run) {
    const auto stream = c10::cuda::getCurrentCUDAStream();
    use_on(plan, stream);
    const auto split = TaskSplit::of<T>(plan, args.heads, stream);
    const at::Tensor totals = bytes_on(plan.rowptr, cuda::softmax_bytes<T>(plan.rows, args.heads));
    for_ids(index, index, [&](const auto* row, const auto*) {
      C10_CUDA_CHECK(run(row, args, split.split_rows, totals.mutable_data_ptr(), split.scratch(), stream));
    });
  }

  template <typename Body>
  static void for_ids(const at::Tensor& src, const at::Tensor& dst, const Body& body) {
    const at::Tensor s = src.contiguous(), d = dst.contiguous();
    if (s.scalar_type() == at::kInt) {
      body(s.const_data_ptr<int32_t>(), d.const_data_ptr<int32_t>());
    } else {
      body(s.const_data_ptr<int64_t>(), d.const_data_ptr<int64_t>());
    }
  }
};

TORCH_LIBRARY_IMPL(gnna, CUDA, m) {
  m.impl("spmm", &spmm_on<Cuda>);
  m.impl("segment_reduce", &segment_reduce_on<Cuda>);
  m.impl("segment_extremum_backward", &segment_extremum_backward_on<Cuda>);
  m.impl("spmm_arg", &spmm_arg_on<Cuda>);
  m.impl("sddmm", &sddmm_on<Cuda>);
  m.impl("extremum_backward", &extremum_backward_on<Cuda>);
  m.impl("gather_rows", &gather_rows_on<Cuda>);
  m.impl("scatter_rows", &scatter_rows_on<Cuda>);
  m.impl("segment_softmax", &segment_softmax_on<Cuda>);
  m.impl("segment_softmax_backward", &segment_softmax_backward_on<Cuda>);
  m.impl("pair_reduce", &pair_reduce_on<Cuda>);
  m.impl("pair_dot", &pair_dot_on<Cuda>);
  m.impl("pair_map", &pair_map_on<Cuda>);
  m.impl("pair_extremum_backward", &pair_extremum_backward_on<Cuda>);
}

}  // namespace
}  // namespace gnna
