// Rabbit order (Arai et al., IPDPS 2016), parallel and deterministic. In the original, threads merge communities
// concurrently, so the order depends on timing. Here nodes are processed in batches of ascending degree:
//  - In parallel, each node of a batch sums its edges per neighbouring community and picks the best one. All see the
//    communities as they were when the batch began. This is most of the work.
//  - One thread commits the picks in order. A pick that an earlier commit has made invalid is put back into the next
//    batch. A commit takes a few loads.
//
// The edges of a community are not moved when it grows. A node keeps its list of summed edges. When the root of its
// community is processed, the root reads the lists of the nodes that have joined it. Weights are counts of edges, so
// the sums are exact.
#include <algorithm>
#include <atomic>
#include <memory>

#include "gnna/order.h"

namespace gnna::cpu {
namespace {

constexpr int32_t kNone = -1;
// Number of batches, and least nodes per batch. Fewer batches make the picks less exact. More batches start a parallel
// region for a handful of nodes. Against one node per batch, com-dblp loses 0.1 % of modularity.
constexpr int64_t kBatches = 64, kLeastBatch = 512;
// Batches that a node may take part in. Without a limit, paths and grids need as many batches as they have nodes.
constexpr uint8_t kTries = 4;
constexpr int64_t kChunk = 64;             // nodes that a thread takes at a time
constexpr int64_t kSerialEdges = 1 << 14;  // below this, one thread is faster than two

struct Edge {
  int32_t to;
  int32_t weight;
};

struct EdgeList {
  const Edge* edges = nullptr;  // nullptr: the node's own edges in the graph
  int64_t count = 0;
};

// Both directions of every edge. Readers skip self-loops. The list is csr's own if csr is symmetric, else own_to.
struct Adjacency {
  const int64_t* start;  // [nodes + 1]
  const int32_t* to;
  std::vector<int64_t> own_start;
  std::vector<int32_t> own_to;
  int64_t nodes;
};

uint64_t mix(uint64_t low, uint64_t high) {
  uint64_t h = (low << 32 | high) + 0x9e3779b97f4a7c15u;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
  return h ^ (h >> 31);
}

// Returns whether the edge list equals its reverse, by a 64-bit hash sum. A false positive (chance 2^-64) only makes
// the order worse.
bool is_symmetric(const CsrView& csr, const Executor& executor) {
  if (csr.rows != csr.cols) return false;
  const int64_t tasks = std::max(1, executor.threads);
  std::vector<uint64_t> sums(tasks, 0);
  executor.run(tasks, [&](int64_t task) {
    uint64_t sum = 0;
    for (int64_t row = csr.rows * task / tasks; row < csr.rows * (task + 1) / tasks; ++row)
      for (int64_t slot = csr.rowptr[row]; slot < csr.rowptr[row + 1]; ++slot) {
        const auto a = static_cast<uint32_t>(row), b = static_cast<uint32_t>(csr.col[slot]);
        sum += mix(a, b) - mix(b, a);
      }
    sums[task] = sum;
  });
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total == 0;
}

Adjacency adjacency_of(const CsrView& csr, const Executor& executor) {
  Adjacency graph{csr.rowptr, csr.col, {}, {}, csr.rows};
  if (is_symmetric(csr, executor)) return graph;
  const int64_t shift = csr.rows == csr.cols ? 0 : csr.rows;  // for two sets of nodes, column c is node rows + c
  graph.nodes = csr.rows + (shift ? csr.cols : 0);
  graph.own_start.assign(graph.nodes + 1, 0);
  int64_t* const next = graph.own_start.data();  // counts, then the first free place for every node
  for (int64_t row = 0; row < csr.rows; ++row) next[row] += csr.rowptr[row + 1] - csr.rowptr[row];
  for (int64_t slot = 0; slot < csr.edges; ++slot) ++next[csr.col[slot] + shift];
  int64_t total = 0;
  for (int64_t node = 0; node <= graph.nodes; ++node) {
    const int64_t count = next[node];
    next[node] = total;
    total += count;
  }
  graph.own_to.resize(total);
  for (int64_t row = 0; row < csr.rows; ++row)
    for (int64_t slot = csr.rowptr[row]; slot < csr.rowptr[row + 1]; ++slot) {
      const int64_t column = csr.col[slot] + shift;
      graph.own_to[next[row]++] = static_cast<int32_t>(column);
      graph.own_to[next[column]++] = static_cast<int32_t>(row);
    }
  for (int64_t node = graph.nodes; node > 0; --node) next[node] = next[node - 1];  // from ends back to starts
  next[0] = 0;
  graph.start = graph.own_start.data();
  graph.to = graph.own_to.data();
  return graph;
}

// The data of one task: memory for the lists that choose() keeps, and a hash table from the communities next to one
// node to the weights of the edges to them.
class Workspace {
 public:
  // Prepares the table, which must be empty, for up to `most` communities.
  void clear(int64_t most) {
    int64_t size = 16;
    while (size < 2 * most) size *= 2;
    if (static_cast<int64_t>(table_.size()) < size) table_.assign(size, {kNone, 0});
    mask_ = static_cast<uint32_t>(size - 1);
    used_.clear();
  }

  void add(int32_t to, int32_t weight) {
    uint32_t at = static_cast<uint32_t>(to) * 0x9e3779b1u & mask_;
    while (table_[at].to != to) {
      if (table_[at].to == kNone) {
        table_[at] = {to, 0};
        used_.push_back(at);
        break;
      }
      at = (at + 1) & mask_;
    }
    table_[at].weight += weight;
  }

  // Calls body(edge) for every community in the table and empties the table.
  template <typename Body>
  void drain(const Body& body) {
    for (const uint32_t at : used_) {
      body(table_[at]);
      table_[at].to = kNone;
    }
    used_.clear();
  }

  int64_t size() const { return static_cast<int64_t>(used_.size()); }

  Edge* room_for(int64_t count) {
    if (left_ < count) {
      left_ = std::max<int64_t>(count, 1 << 16);
      blocks_.emplace_back(new Edge[left_]);
      next_ = blocks_.back().get();
    }
    Edge* const room = next_;
    next_ += count;
    left_ -= count;
    return room;
  }

  std::vector<int32_t> stack;

 private:
  std::vector<Edge> table_;
  std::vector<uint32_t> used_;
  uint32_t mask_ = 0;
  std::vector<std::unique_ptr<Edge[]>> blocks_;
  Edge* next_ = nullptr;
  int64_t left_ = 0;
};

class Rabbit {
 public:
  explicit Rabbit(const Adjacency& graph)
      : graph_(graph),
        parent_(graph.nodes),
        strength_(graph.nodes),
        child_(graph.nodes, kNone),
        sibling_(graph.nodes, kNone),
        seen_(graph.nodes, kNone),
        pick_(graph.nodes, {kNone, 0}),
        list_(graph.nodes),
        tries_(graph.nodes, 0) {
    for (int64_t node = 0; node < graph.nodes; ++node) {
      parent_[node].store(static_cast<int32_t>(node), std::memory_order_relaxed);
      int64_t strength = 0;
      for (int64_t at = graph.start[node]; at < graph.start[node + 1]; ++at) strength += graph.to[at] != node;
      strength_[node] = strength;
      total_ += strength;
    }
  }

  // Returns false if *stop ended it early.
  bool aggregate(const Executor& executor, const std::atomic<bool>* stop) {
    std::vector<int32_t> nodes(graph_.nodes);
    by_ascending_degree(nodes.data());
    const int64_t tasks = std::max(1, executor.threads);
    std::vector<Workspace> workspaces(tasks);
    std::vector<int32_t> batch, put_back;
    const int64_t size = std::max(kLeastBatch, graph_.nodes / kBatches);
    const int64_t edges = std::max(total_ / kBatches, kLeastBatch * 16);
    size_t next = 0;
    while (next < nodes.size() || !put_back.empty()) {
      if (stop && stop->load(std::memory_order_relaxed)) return false;
      batch.swap(put_back);
      put_back.clear();
      // Counts the new nodes only, because a large community that was put back must not keep them out.
      int64_t work = 0;
      while (next < nodes.size() && static_cast<int64_t>(batch.size()) < size && work < edges) {
        work += strength_[nodes[next]];
        batch.push_back(nodes[next++]);
      }
      const auto count = static_cast<int64_t>(batch.size());
      std::atomic<int64_t> taken{0};
      const auto work_on = [&](int64_t task) {
        for (int64_t at = taken.fetch_add(kChunk); at < count; at = taken.fetch_add(kChunk))
          for (int64_t i = at; i < std::min(at + kChunk, count); ++i) choose(batch[i], workspaces[task]);
      };
      if (count <= kChunk || work + count < kSerialEdges) {
        work_on(0);
      } else {
        executor.run(tasks, work_on);
      }
      for (const int32_t node : batch)
        if (!commit(node) && ++tries_[node] < kTries) put_back.push_back(node);
    }
    return true;
  }

  Communities number() const {
    Communities result;
    result.order.reserve(graph_.nodes);
    result.community.resize(graph_.nodes);
    std::vector<int32_t> stack;
    for (const bool alone : {false, true})  // nodes without edges last
      for (int64_t root = 0; root < graph_.nodes; ++root) {
        if (parent_[root].load(std::memory_order_relaxed) != root || (strength_[root] == 0) != alone) continue;
        stack.assign(1, static_cast<int32_t>(root));
        while (!stack.empty()) {
          const int32_t node = stack.back();
          stack.pop_back();
          result.order.push_back(node);
          result.community[node] = result.count;
          for (int32_t c = child_[node]; c != kNone; c = sibling_[c]) stack.push_back(c);
        }
        ++result.count;
      }
    return result;
  }

 private:
  void by_ascending_degree(int32_t* out) const {
    const int64_t n = graph_.nodes;
    const int64_t most = n ? *std::max_element(strength_.begin(), strength_.end()) : 0;
    std::vector<int64_t> place(most + 2, 0);
    for (int64_t node = 0; node < n; ++node) ++place[strength_[node] + 1];
    for (int64_t degree = 0; degree <= most; ++degree) place[degree + 1] += place[degree];
    for (int64_t node = 0; node < n; ++node) out[place[strength_[node]]++] = static_cast<int32_t>(node);
  }

  // Shortens the path to the root. Threads may call it concurrently, because roots change in commit() only, so that
  // every write leads to the same root.
  int32_t root_of(int32_t node) {
    int32_t parent = parent_[node].load(std::memory_order_relaxed);
    while (parent != node) {
      const int32_t above = parent_[parent].load(std::memory_order_relaxed);
      if (above != parent) parent_[node].store(above, std::memory_order_relaxed);
      node = parent;
      parent = above;
    }
    return node;
  }

  double gain(int64_t weight, int32_t a, int32_t b) const {
    return static_cast<double>(weight) -
           static_cast<double>(strength_[a]) * static_cast<double>(strength_[b]) / static_cast<double>(total_);
  }

  template <typename Body>
  void for_edges(int32_t node, const Body& body) const {
    const EdgeList& list = list_[node];
    if (list.edges) {
      for (int64_t i = 0; i < list.count; ++i) body(list.edges[i]);
    } else {
      for (int64_t at = graph_.start[node]; at < graph_.start[node + 1]; ++at) body(Edge{graph_.to[at], 1});
    }
  }

  int64_t list_size(int32_t node) const {
    return list_[node].edges ? list_[node].count : graph_.start[node + 1] - graph_.start[node];
  }

  // Sums the edges of a root and of the nodes that joined it since its last call, keeps the sums as the root's list and
  // picks a community.
  void choose(int32_t node, Workspace& space) {
    std::vector<int32_t>& members = space.stack;
    members.assign(1, node);
    int64_t most = 0;
    for (size_t at = 0; at < members.size(); ++at) {
      const int32_t member = members[at];
      most += list_size(member);
      for (int32_t c = child_[member]; c != seen_[member]; c = sibling_[c]) members.push_back(c);
    }
    space.clear(most);
    for (const int32_t member : members)
      for_edges(member, [&](Edge edge) {
        const int32_t to = root_of(edge.to);
        if (to != node) space.add(to, edge.weight);
      });
    const bool keep = members.size() > 1;  // without new members the node's present list remains valid
    Edge* const kept = keep ? space.room_for(space.size()) : nullptr;
    int64_t count = 0;
    Edge best{kNone, 0};
    double best_gain = 0;
    space.drain([&](Edge edge) {
      if (keep) kept[count++] = edge;
      const double g = gain(edge.weight, node, edge.to);
      if (g > best_gain || (g == best_gain && g > 0 && edge.to < best.to)) {
        best = edge;
        best_gain = g;
      }
    });
    if (keep) list_[node] = {kept, count};
    seen_[node] = child_[node];
    pick_[node] = best;
  }

  // Merges the node into the community it picked, if that still gains. Returns false if the node has to choose again.
  bool commit(int32_t node) {
    const bool grown = child_[node] != seen_[node];
    const Edge pick = pick_[node];
    if (pick.to == kNone) return !grown;
    const int32_t to = root_of(pick.to);
    if (to == node || gain(pick.weight, node, to) <= 0) return false;
    parent_[node].store(to, std::memory_order_relaxed);
    strength_[to] += strength_[node];
    sibling_[node] = child_[to];
    child_[to] = node;
    return true;
  }

  const Adjacency& graph_;
  std::vector<std::atomic<int32_t>> parent_;
  std::vector<int64_t> strength_;  // edge ends in the community, without self-loops
  int64_t total_ = 0;              // twice the number of edges
  // The dendrogram: the nodes that joined a node, latest first. From seen_ on, their edges are part of the node's list.
  std::vector<int32_t> child_, sibling_, seen_;
  std::vector<Edge> pick_;  // picked community, and the weight of the edges to it
  std::vector<EdgeList> list_;
  std::vector<uint8_t> tries_;
};

}  // namespace

Communities rabbit_order(const CsrView& csr, const Executor& executor, const std::atomic<bool>* stop) {
  const Adjacency graph = adjacency_of(csr, executor);
  Rabbit rabbit(graph);
  if (!rabbit.aggregate(executor, stop)) return {};
  return rabbit.number();
}

}  // namespace gnna::cpu
