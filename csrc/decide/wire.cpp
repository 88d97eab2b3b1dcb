// How facts, overrides and decisions cross between C++ and Python: as lists of integers, field by field.
#include <stdexcept>

#include "gnna/decide.h"

namespace gnna {

namespace {

using Values = std::vector<int64_t>;

// Hands out the elements of a list one after the other.
class Reader {
 public:
  Reader(const Values& values, size_t expected) : values_(values) {
    if (values.size() != expected) {
      throw std::invalid_argument("a list of " + std::to_string(values.size()) + " integers was given; it must have " +
                                  std::to_string(expected));
    }
  }
  template <typename T>
  void operator()(T& field) {
    field = static_cast<T>(values_[next_++]);
  }

 private:
  const Values& values_;
  size_t next_ = 0;
};

// Appends fields to a list.
class Writer {
 public:
  template <typename T>
  void operator()(const T& field) {
    values.push_back(static_cast<int64_t>(field));
  }
  Values values;
};

// Each struct's fields, in their order in the list.
template <typename Visit, typename Graph>
void visit_graph(Visit& visit, Graph& g) {
  visit(g.rows), visit(g.cols), visit(g.edges), visit(g.max_degree);
}

template <typename Visit, typename Layer>
void visit_layer(Visit& visit, Layer& l) {
  visit(l.width), visit(l.head_dim), visit(l.itemsize), visit(l.weighted), visit(l.reduce), visit(l.aligned);
}

template <typename Visit, typename Device>
void visit_device(Visit& visit, Device& d) {
  visit(d.cuda), visit(d.processors), visit(d.l2_bytes);
}

// Config: KernelConfig or Overrides, without the kernel.
template <typename Visit, typename Config>
void visit_parameters(Visit& visit, Config& c) {
  visit(c.lanes), visit(c.groups), visit(c.group_size), visit(c.vector_width), visit(c.vectors), visit(c.block);
  visit(c.split_above), visit(c.chunk_edges);
}

constexpr size_t kGraph = 4, kLayer = 6, kDevice = 3, kConfig = 9, kSource = 1;
constexpr int64_t kOpen = -1;  // a kernel that is not overridden

template <typename Read>
void read_overrides(Read& read, Overrides& overrides) {
  int64_t kernel = kOpen;
  read(kernel);
  if (kernel != kOpen) overrides.kernel = static_cast<Kernel>(kernel);
  visit_parameters(read, overrides);
}

}  // namespace

Values GraphFacts::to_vector() const {
  Writer write;
  visit_graph(write, *this);
  return write.values;
}

Values LayerFacts::to_vector() const {
  Writer write;
  visit_layer(write, *this);
  return write.values;
}

Values DeviceFacts::to_vector() const {
  Writer write;
  visit_device(write, *this);
  return write.values;
}

DeviceFacts DeviceFacts::from_vector(const Values& values) {
  Reader read(values, kDevice);
  DeviceFacts facts;
  visit_device(read, facts);
  return facts;
}

LaunchFacts LaunchFacts::from_vector(const Values& values) {
  Reader read(values, kGraph + kLayer);
  LaunchFacts facts;
  visit_graph(read, facts.graph);
  visit_layer(read, facts.layer);
  return facts;
}

Overrides Overrides::from_vector(const Values& values) {
  Reader read(values, kConfig);
  Overrides overrides;
  read_overrides(read, overrides);
  return overrides;
}

Values Decision::to_vector() const {
  Writer write;
  visit_graph(write, graph);
  visit_layer(write, layer);
  visit_device(write, device);
  write(overrides.kernel ? static_cast<int64_t>(*overrides.kernel) : kOpen);
  visit_parameters(write, overrides);
  write(source);
  write(config.kernel);
  visit_parameters(write, config);
  return write.values;
}

Decision Decision::from_vector(const Values& values) {
  Reader read(values, kGraph + kLayer + kDevice + kConfig + kSource + kConfig);
  Decision decision;
  visit_graph(read, decision.graph);
  visit_layer(read, decision.layer);
  visit_device(read, decision.device);
  read_overrides(read, decision.overrides);
  read(decision.source);
  read(decision.config.kernel);
  visit_parameters(read, decision.config);
  return decision;
}

}  // namespace gnna
