// Usage: driver <cases> <results>. Runs the operations of gnna/cuda_api.h on the cases of a file. Each case runs under
// several schedules, which must all give the same bits. The driver allocates the memory that a caller of the API would
// allocate, in exactly the required size, and fills it with a pattern (Buffer::kUnwritten).
#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "case_file.h"
#include "gnna/cuda_api.h"
#include "self_test.h"

namespace {

using namespace gnna;
using simt::Buffer;
using simt::Case;
using simt::Results;

template <typename T>
T* output(Results& results, const std::string& name, int64_t count, size_t shift = 0) {
  return (results[name] = Buffer(static_cast<size_t>(count) * sizeof(T), shift)).template as<T>();
}

void put(Results& results, const std::string& name, int64_t value) { *output<int64_t>(results, name, 1) = value; }

void put_error(Results& results, cudaError_t error) {
  put(results, "error", error);
  if (cudaGetLastError() != cudaSuccess) simt::fail("the operation left an error for cudaGetLastError()");
}

CsrView csr_of(const Case& c, const std::string& prefix) {
  const int64_t rows = static_cast<int64_t>(c.bytes(prefix + "rowptr") / sizeof(int64_t)) - 1;
  const int64_t edges = static_cast<int64_t>(c.bytes(prefix + "col") / sizeof(int32_t));
  return {rows,
          c.number(prefix + "cols"),
          edges,
          c.array<int64_t>(prefix + "rowptr"),
          c.array<int32_t>(prefix + "col"),
          c.array<int32_t>(prefix + "perm"),
          c.array<int32_t>(prefix + "order")};
}

// A cuda::Partition with its memory: chunks of split rows, and neighbour groups.
struct Partition {
  Buffer chunks, group_first, group_row;
  int64_t chunk_count = 0, group_count = 0;

  cuda::Partition view(int64_t split_above) const {
    cuda::Partition p;
    const auto* const first = chunks.as<cuda::RowChunk>();
    const bool needs_combining =
        std::any_of(first, first + chunk_count, [](const auto& chunk) { return chunk.count > 1; });
    if (chunk_count > 0) p.split_rows = {first, chunk_count, split_above, needs_combining};
    if (group_count > 0) p.groups = {group_first.as<int64_t>(), group_row.as<int32_t>(), group_count};
    return p;
  }
};

Partition chunks_of(const int64_t* rowptr, int64_t rows, int64_t threshold, int64_t chunk_edges, Results& results) {
  Partition partition;
  const Buffer first((rows + 1) * sizeof(int64_t)), scan(cuda::partition_scan_bytes(rows));
  cudaError_t error = cuda::count_chunks(rowptr, rows, threshold, chunk_edges, first.as<int64_t>(), scan.as<void>(),
                                         scan.bytes(), nullptr);
  if (error == cudaSuccess) {
    partition.chunk_count = first.as<int64_t>()[rows];
    partition.chunks = Buffer(partition.chunk_count * sizeof(cuda::RowChunk));
    error = cuda::list_chunks(rowptr, rows, threshold, chunk_edges, first.as<int64_t>(),
                              partition.chunks.as<cuda::RowChunk>(), nullptr);
  }
  put_error(results, error);
  return partition;
}

void add_groups(const int64_t* rowptr, int64_t rows, int64_t group_size, int64_t split_above, Partition& partition,
                Results& results) {
  partition.group_first = Buffer((rows + 1) * sizeof(int64_t));
  const Buffer scan(cuda::partition_scan_bytes(rows));
  cudaError_t error = cuda::count_groups(rowptr, rows, group_size, split_above, partition.group_first.as<int64_t>(),
                                         scan.as<void>(), scan.bytes(), nullptr);
  if (error == cudaSuccess) {
    partition.group_count = partition.group_first.as<int64_t>()[rows];
    partition.group_row = Buffer(partition.group_count * sizeof(int32_t));
    error = cuda::list_groups(partition.group_first.as<int64_t>(), rows, partition.group_row.as<int32_t>(), nullptr);
  }
  put_error(results, error);
}

template <typename T>
SpmmArgs<T> spmm_args(const Case& c, Results& results) {
  SpmmArgs<T> args;
  args.csr = csr_of(c, "");
  args.x = c.array<T>("x");
  args.x_stride = c.number("x_stride");
  args.weight = c.array<T>("weight");
  args.weight_index = c.array<int32_t>("weight_index");
  args.heads = c.number("heads");
  args.head_dim = c.number("head_dim");
  args.reduce = static_cast<Reduce>(c.number("reduce"));
  args.out = output<T>(results, "out", args.csr.rows * args.heads * args.head_dim, c.number("out_shift"));
  return args;
}

template <typename T>
void spmm_arg(const Case& c, Results& results) {
  const SpmmArgs<T> args = spmm_args<T>(c, results);
  const int64_t width = args.heads * args.head_dim;
  auto* arg = output<int32_t>(results, "arg", args.csr.rows * width);
  const Partition partition =
      chunks_of(args.csr.rowptr, args.csr.rows, c.number("split_above"), c.number("chunk_edges"), results);
  const cuda::SplitRows split_rows = partition.view(c.number("split_above")).split_rows;
  const Buffer scratch(cuda::task_scratch_bytes<T>(split_rows, width));
  put_error(results,
            cuda::spmm_arg(args, arg, split_rows, split_rows.needs_combining ? scratch.as<void>() : nullptr, nullptr));
}

template <typename T>
void spmm(const Case& c, Results& results) {
  SpmmArgs<T> args = spmm_args<T>(c, results);
  args.x_padded = c.number("x_padded") != 0;
  const int64_t width = args.heads * args.head_dim;

  KernelConfig config;
  if (c.number("decide") != 0) {
    GraphFacts graph{args.csr.rows, args.csr.cols, args.csr.edges, c.number("max_degree")};
    config = decide(graph, layer_facts(args), {true, c.number("processors"), c.number("l2_bytes")}).config;
  } else {
    config.kernel = static_cast<Kernel>(c.number("kernel"));
    config.group_size = static_cast<int>(c.number("group_size"));
    config.lanes = static_cast<int>(c.number("lanes"));
    config.groups = static_cast<int>(c.number("groups"));
    config.vector_width = static_cast<int>(c.number("vector_width"));
    config.vectors = static_cast<int>(c.number("vectors"));
    config.block = static_cast<int>(c.number("block"));
    config.split_above = c.number("split_above");
    config.chunk_edges = c.number("chunk_edges");
  }
  Partition partition = chunks_of(args.csr.rowptr, args.csr.rows, config.split_above, config.chunk_edges, results);
  if (config.kernel == Kernel::Group) {
    add_groups(args.csr.rowptr, args.csr.rows, config.group_size, config.split_above, partition, results);
  }
  const cuda::Partition view = partition.view(config.split_above);
  const Buffer scratch(cuda::spmm_scratch_bytes(args, config, view.split_rows));
  put_error(results,
            cuda::spmm(args, config, view, view.split_rows.needs_combining ? scratch.as<void>() : nullptr, nullptr));
  put(results, "chunks", partition.chunk_count);
  const int64_t tile = static_cast<int64_t>(config.lanes) * config.vectors * config.vector_width;
  put(results, "tiles", (width + tile - 1) / tile);
  put(results, "vector_width", config.vector_width);
}

template <typename T, typename Id>
void sddmm(const Case& c, Results& results) {
  SddmmArgs<T> args;
  args.csr.edges = static_cast<int64_t>(c.bytes("src") / sizeof(Id));
  args.a = c.array<T>("a");
  args.b = c.array<T>("b");
  args.heads = c.number("heads");
  args.head_dim = c.number("head_dim");
  args.out = output<T>(results, "out", args.csr.edges * args.heads);
  put_error(results, cuda::sddmm(c.array<Id>("src"), c.array<Id>("dst"), args, nullptr));
}

template <typename T, typename Id>
void extremum(const Case& c, Results& results) {
  const CsrView forward = csr_of(c, "forward_"), transposed = csr_of(c, "transposed_");
  ExtremumArgs<T> args;
  args.grad = c.array<T>("grad");
  args.x = c.array<T>("x");
  args.weight = c.array<T>("weight");
  args.out = c.array<T>("out");
  args.heads = c.number("heads");
  args.head_dim = c.number("head_dim");
  const int64_t width = args.heads * args.head_dim;
  args.share = output<Compute<T>>(results, "share", forward.rows * width);
  args.grad_x = output<T>(results, "grad_x", transposed.rows * width);
  for (const bool share : {true, false}) {
    const CsrView& csr = share ? forward : transposed;
    const Partition partition =
        chunks_of(csr.rowptr, csr.rows, c.number("split_above"), c.number("chunk_edges"), results);
    const cuda::SplitRows split_rows = partition.view(c.number("split_above")).split_rows;
    const Buffer memory(cuda::task_scratch_bytes<T>(split_rows, width));
    void* const scratch = split_rows.needs_combining ? memory.as<void>() : nullptr;
    put_error(results, share ? cuda::extremum_share(csr, args, split_rows, scratch, nullptr)
                             : cuda::extremum_grad_x(csr, args, split_rows, scratch, nullptr));
  }
  if (args.weight == nullptr) return;
  args.grad_weight = output<T>(results, "grad_weight", forward.edges * args.heads);
  put_error(results, cuda::extremum_grad_weight(c.array<Id>("src"), c.array<Id>("dst"), forward.edges, args, nullptr));
}

template <typename T, typename Id>
void segment_softmax(const Case& c, Results& results) {
  SegmentSoftmaxArgs<T> args;
  args.csr = csr_of(c, "");
  args.scores = c.array<T>("scores");
  args.heads = c.number("heads");
  args.out = output<T>(results, "out", args.csr.edges * args.heads);
  const auto* index = c.array<Id>("index");
  const Partition partition =
      chunks_of(args.csr.rowptr, args.csr.rows, c.number("split_above"), c.number("chunk_edges"), results);
  const cuda::SplitRows split_rows = partition.view(c.number("split_above")).split_rows;
  const Buffer totals(cuda::softmax_bytes<T>(args.csr.rows, args.heads));
  const Buffer memory(cuda::task_scratch_bytes<T>(split_rows, args.heads));
  void* const scratch = split_rows.needs_combining ? memory.template as<void>() : nullptr;
  put_error(results, cuda::segment_softmax(index, args, split_rows, totals.as<void>(), scratch, nullptr));

  SegmentSoftmaxBackwardArgs<T> backward;
  backward.csr = args.csr;
  backward.out = args.out;
  backward.grad = c.array<T>("grad");
  backward.heads = args.heads;
  backward.grad_scores = output<T>(results, "grad_scores", args.csr.edges * args.heads);
  put_error(results, cuda::segment_softmax_backward(index, backward, split_rows, totals.as<void>(), scratch, nullptr));
}

template <typename T, typename Id>
void pair(const Case& c, Results& results) {
  PairArgs<T> args;
  args.csr = csr_of(c, "");
  args.rows = c.array<T>("rows");
  args.cols = c.array<T>("of_cols");
  args.edges = c.array<T>("edges");
  args.weight = c.array<T>("weight");
  args.left = c.array<T>("left");
  args.right = c.array<T>("right");
  args.best = c.array<T>("best");
  args.heads = c.number("heads");
  args.head_dim = c.number("head_dim");
  args.left_stride = c.number("shared_left") != 0 ? 0 : args.width();
  args.function = static_cast<Activation>(c.number("function"));
  args.order = static_cast<int>(c.number("order"));
  args.parameter = static_cast<Compute<T>>(c.number("parameter_percent")) / 100;
  args.reduce = static_cast<Reduce>(c.number("reduce"));
  args.out = output<T>(results, "reduced", args.csr.rows * args.width());
  const Partition partition =
      chunks_of(args.csr.rowptr, args.csr.rows, c.number("split_above"), c.number("chunk_edges"), results);
  const cuda::SplitRows split_rows = partition.view(c.number("split_above")).split_rows;
  const Buffer memory(cuda::task_scratch_bytes<T>(split_rows, args.width()));
  void* const scratch = split_rows.needs_combining ? memory.template as<void>() : nullptr;
  put_error(results, cuda::pair_reduce(args, split_rows, scratch, nullptr));

  const auto *src = c.array<Id>("src"), *dst = c.array<Id>("dst");
  args.out = output<T>(results, "mapped", args.csr.edges * args.width());
  put_error(results, cuda::pair_map(src, dst, args, nullptr));
  args.weight = nullptr;
  args.out = output<T>(results, "dots", args.csr.edges * args.heads);
  put_error(results, cuda::pair_dot(src, dst, args, nullptr));
}

template <typename Id>
void gather(const Case& c, Results& results) {
  const int64_t edges = static_cast<int64_t>(c.bytes("index") / sizeof(Id)), row_bytes = c.number("row_bytes");
  auto* out = output<unsigned char>(results, "out", edges * row_bytes, c.number("out_shift"));
  put_error(results,
            cuda::gather_rows(c.array<unsigned char>("x"), c.array<Id>("index"), edges, row_bytes, out, nullptr));
}

template <typename T>
void pad(const Case& c, Results& results) {
  const int64_t rows = c.number("rows"), padded = c.number("padded");
  T* const out = output<T>(results, "out", rows * padded);
  put_error(results,
            cuda::pad_rows(c.array<T>("x"), c.number("stride"), rows, c.number("width"), padded, out, nullptr));
}

template <typename Id>
void check(const Case& c, Results& results) {
  auto* found = output<EdgeCheck>(results, "found", 1);
  put_error(results,
            cuda::check_edges(c.array<Id>("row"), c.array<Id>("col"), static_cast<int64_t>(c.bytes("row") / sizeof(Id)),
                              c.number("rows"), c.number("cols"), found, nullptr));
}

template <typename Id>
void csr(const Case& c, Results& results) {
  const int64_t edges = static_cast<int64_t>(c.bytes("row") / sizeof(Id)), rows = c.number("rows");
  const bool sorted = c.number("sorted") != 0;
  auto* rowptr = output<int64_t>(results, "rowptr", rows + 1);
  auto* col = output<int32_t>(results, "col", edges);
  int32_t* perm = sorted ? nullptr : output<int32_t>(results, "perm", edges);
  const Buffer workspace(cuda::build_csr_workspace<Id>(edges, rows, sorted));
  put_error(results, cuda::build_csr(c.array<Id>("row"), c.array<Id>("col"), edges, rows, sorted, rowptr, col, perm,
                                     workspace.as<void>(), workspace.bytes(), nullptr));
  put_error(results, cuda::max_degree(rowptr, rows, output<int64_t>(results, "max_degree", 1), nullptr));
}

template <typename Id>
void count(const Case& c, Results& results) {
  const int64_t edges = static_cast<int64_t>(c.bytes("row") / sizeof(Id)), rows = c.number("rows");
  auto* rowptr = output<int64_t>(results, "rowptr", rows + 1);
  auto* col = output<int32_t>(results, "col", edges);
  auto* perm = output<int32_t>(results, "perm", edges);
  const Buffer workspace(cuda::count_csr_workspace(edges, rows));
  cuda::EdgeSummary summary;
  put_error(results, cuda::count_csr(c.array<Id>("row"), c.array<Id>("col"), edges, rows, c.number("cols"), rowptr, col,
                                     perm, workspace.as<void>(), &summary, nullptr));
  auto* found = output<int64_t>(results, "found", 6);
  const EdgeCheck& check = summary.check;
  const int64_t values[] = {check.bad_row,      check.bad_col,     check.unsorted,
                            summary.max_degree, summary.symmetric, summary.fits};
  std::copy(std::begin(values), std::end(values), found);
}

void schedule(const Case& c, Results& results) {
  const CsrView csr = csr_of(c, "");
  auto* rowptr = output<int64_t>(results, "rowptr", csr.rows + 1);
  auto* col = output<int32_t>(results, "col", csr.edges);
  auto* perm = output<int32_t>(results, "perm", csr.edges);
  const Buffer scan(cuda::partition_scan_bytes(csr.rows));
  put_error(results, cuda::schedule_csr(csr, c.array<int32_t>("places"), rowptr, col, perm, scan.as<void>(),
                                        scan.bytes(), nullptr));
}

void chunks(const Case& c, Results& results) {
  const int64_t rows = static_cast<int64_t>(c.bytes("rowptr") / sizeof(int64_t)) - 1;
  Partition partition =
      chunks_of(c.array<int64_t>("rowptr"), rows, c.number("threshold"), c.number("chunk_edges"), results);
  results["chunks"] = std::move(partition.chunks);
}

void groups(const Case& c, Results& results) {
  const int64_t rows = static_cast<int64_t>(c.bytes("rowptr") / sizeof(int64_t)) - 1;
  Partition partition;
  add_groups(c.array<int64_t>("rowptr"), rows, c.number("group_size"), c.number("split_above"), partition, results);
  results["first"] = std::move(partition.group_first);
  results["row"] = std::move(partition.group_row);
}

template <typename T>
void run_of_type(const Case& c, Results& results) {
  const bool wide = c.numbers.count("int64") != 0;
  if (c.operation == "spmm") return spmm<T>(c, results);
  if (c.operation == "spmm_arg") return spmm_arg<T>(c, results);
  if (c.operation == "pad") return pad<T>(c, results);
  if (c.operation == "segment_softmax") {
    return wide ? segment_softmax<T, int64_t>(c, results) : segment_softmax<T, int32_t>(c, results);
  }
  if (c.operation == "pair") return wide ? pair<T, int64_t>(c, results) : pair<T, int32_t>(c, results);
  if (c.operation == "sddmm") return wide ? sddmm<T, int64_t>(c, results) : sddmm<T, int32_t>(c, results);
  if (c.operation == "extremum") return wide ? extremum<T, int64_t>(c, results) : extremum<T, int32_t>(c, results);
  simt::fail("there is no operation %s", c.operation.c_str());
}

void run(const Case& c, Results& results) {
  const bool wide = c.numbers.count("int64") != 0;
  const std::string& name = c.operation;
  if (name == "check") return wide ? check<int64_t>(c, results) : check<int32_t>(c, results);
  if (name == "csr") return wide ? csr<int64_t>(c, results) : csr<int32_t>(c, results);
  if (name == "count") return wide ? count<int64_t>(c, results) : count<int32_t>(c, results);
  if (name == "gather") return wide ? gather<int64_t>(c, results) : gather<int32_t>(c, results);
  if (name == "chunks") return chunks(c, results);
  if (name == "schedule") return schedule(c, results);
  if (name == "groups") return groups(c, results);
  if (name == "self_test") return put(results, "value", simt::self_test(c.number("which")));
  if (c.numbers.count("float64") != 0) return run_of_type<double>(c, results);
  if (c.numbers.count("float16") != 0) return run_of_type<Float16>(c, results);
  if (c.numbers.count("bfloat16") != 0) return run_of_type<BFloat16>(c, results);
  run_of_type<float>(c, results);
}

void demand_same_bits(const Results& first, const Results& other) {
  for (const auto& [name, buffer] : first) {
    const Buffer& second = other.at(name);
    if (buffer.bytes() != second.bytes() || std::memcmp(buffer.as<char>(), second.as<char>(), buffer.bytes()) != 0) {
      simt::fail("the bits of %s depend on the schedule", name.c_str());
    }
  }
}

}  // namespace

int main(int count, char** words) {
  if (count != 3) return 2;
  std::ifstream in(words[1], std::ios::binary);
  std::ofstream out(words[2], std::ios::binary);
  for (int number = 0;; ++number) {
    Case c;
    if (!c.read(in)) break;
    const std::string task = "case " + std::to_string(number) + " (" + c.operation + ")";
    simt::set_task(task.c_str());
    Results first;
    for (int64_t schedule = 0; schedule < c.number("schedules"); ++schedule) {
      simt::set_schedule(schedule > 1 ? schedule + c.number("seed") : schedule);
      Results results;
      run(c, results);
      if (schedule == 0) {
        first = std::move(results);
      } else {
        demand_same_bits(first, results);
      }
    }
    simt::write(out, first);
  }
  return 0;
}
