// The data that kernels work on: a neighbour list in CSR form, the reduction, and the arguments of each operation as
// plain structs of raw pointers. Includes neither torch nor CUDA headers.
#pragma once

#include <cstdint>

namespace gnna {

// The 16-bit types as bits. Kernels compute on them in float and round once, to nearest even, when they store.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// The type that a kernel computes and accumulates in.
template <typename T>
struct ComputeOf {
  using Type = T;
};
template <>
struct ComputeOf<Float16> {
  using Type = float;
};
template <>
struct ComputeOf<BFloat16> {
  using Type = float;
};
template <typename T>
using Compute = typename ComputeOf<T>::Type;

// The reduction of a row's messages. An empty row gives 0 for all four. Max and Min propagate NaN, as
// torch.scatter_reduce does.
enum class Reduce : int { Sum = 0, Mean = 1, Max = 2, Min = 3 };

// A function of one number, by torch's definitions: LeakyRelu has the parameter negative_slope, Elu alpha. Gelu is the
// exact one (erf).
enum class Activation : int {
  Identity = 0,
  Relu = 1,
  LeakyRelu = 2,
  Square = 3,
  Exp = 4,
  Elu = 5,
  Gelu = 6,
  Silu = 7,
  Sigmoid = 8,
  Tanh = 9,
};

// The result of check_edges, one pass over the edge list. A position is -1 if there is none.
struct EdgeCheck {
  int64_t bad_row = -1;  // smallest position whose row id is outside [0, rows)
  int64_t bad_col = -1;  // smallest position whose column id is outside [0, cols)
  int64_t unsorted = 0;  // 1 if the row ids are not ascending
};

// Neighbour lists: row r gathers columns col[rowptr[r] .. rowptr[r + 1]). An index into col is a slot. In a forward
// plan rows are destinations and columns are sources; in a transposed plan it is the other way round. If there is an
// order, the lists are stored in the order in which rows are processed (the schedule): place p holds the list of row
// order[p]. rowptr is then indexed by place, and everything else that belongs to a row is still indexed by row.
struct CsrView {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t edges = 0;
  const int64_t* rowptr = nullptr;  // [rows + 1]
  const int32_t* col = nullptr;     // [edges]
  const int32_t* perm = nullptr;    // [edges] slot -> position of that edge in the user's list; nullptr: identity
  const int32_t* order = nullptr;   // [rows] place -> row; nullptr: identity
};

// out[r, h, d] = reduce over the slots k of row r of  weight[k, h] * x[col[k], h, d]
template <typename T>
struct SpmmArgs {
  CsrView csr;
  const T* x = nullptr;  // [cols, heads * head_dim], rows x_stride elements apart
  int64_t x_stride = 0;
  bool x_padded = false;                  // every row of x, including the last, may be read to the end of its stride
  const T* weight = nullptr;              // [edges, heads] or nullptr (all ones)
  const int32_t* weight_index = nullptr;  // slot -> row of weight; nullptr: weight is stored in slot order
  T* out = nullptr;                       // [rows, heads * head_dim], contiguous
  int64_t heads = 1;
  int64_t head_dim = 0;
  Reduce reduce = Reduce::Sum;
};

// out[e, h] = sum over d of a[src[e], h, d] * b[dst[e], h, d], e in the user's edge order
template <typename T>
struct SddmmArgs {
  CsrView csr;           // rows index b, columns index a
  const T* a = nullptr;  // [cols, heads * head_dim], contiguous
  const T* b = nullptr;  // [rows, heads * head_dim], contiguous
  T* out = nullptr;      // [edges, heads]
  int64_t heads = 1;
  int64_t head_dim = 0;
};

// Gradient of a max or min aggregation. A message m[e] = weight[e] * x[src[e]] shares the gradient of its row if it
// equals the row's result. Each share is grad / (number of equal messages + (result == 0)), as in torch.scatter_reduce.
template <typename T>
struct ExtremumArgs {
  const T* grad = nullptr;      // [destinations, heads * head_dim]
  const T* x = nullptr;         // [sources, heads * head_dim], contiguous
  const T* weight = nullptr;    // [edges, heads] in the user's edge order, or nullptr
  const T* out = nullptr;       // [destinations, heads * head_dim], the forward result
  Compute<T>* share = nullptr;  // [destinations, heads * head_dim]: grad divided by the number of sharers
  T* grad_x = nullptr;          // [sources, heads * head_dim]
  T* grad_weight = nullptr;     // [edges, heads] in the user's edge order
  int64_t heads = 1;
  int64_t head_dim = 0;
};

// out[e, h] = exp(scores[e, h]) / sum of exp(scores[k, h]) over the edges k of e's row, e in the user's edge order.
template <typename T>
struct SegmentSoftmaxArgs {
  CsrView csr;                // row pointers and perm only
  const T* scores = nullptr;  // [edges, heads]
  T* out = nullptr;           // [edges, heads]
  int64_t heads = 1;
};

// Gradient of the softmax: grad_scores[e, h] = out[e, h] * (grad[e, h] - sum of out[k, h] * grad[k, h] over the edges k
// of e's row).
template <typename T>
struct SegmentSoftmaxBackwardArgs {
  CsrView csr;               // row pointers and perm only
  const T* out = nullptr;    // [edges, heads], the forward result
  const T* grad = nullptr;   // [edges, heads]
  T* grad_scores = nullptr;  // [edges, heads]
  int64_t heads = 1;
};

// What the pair ops compute from the features of both ends of an edge e, from column c to row r: f^(order) of the sum
//   z[e] = rows[r] + cols[c] + edges[e]
// times left[r] times right[c]. Each operand may be nullptr: it is then left out of the sum or the product. If there is
// `best`, the value is f(z) == best ? f^(order)(z) : 0, where order 0 counts as 1. best belongs to the row, or to the
// column if best_of_cols. It selects the messages that won a max or min.
//   pair_reduce  out[r, h, d] = left * (sum, max or min over e of  weight[e, h] * value without left)
//   pair_dot     out[e, h]    = sum over d of value
//   pair_map     out[e, h, d] = weight[e, h] * value
template <typename T>
struct PairArgs {
  CsrView csr;
  const T* rows = nullptr;    // [rows, heads * head_dim], as left
  const T* cols = nullptr;    // [cols, heads * head_dim], as right
  const T* edges = nullptr;   // [edges, heads * head_dim] in the user's edge order
  const T* weight = nullptr;  // [edges, heads] in the user's edge order
  const T* left = nullptr;
  int64_t left_stride = 0;  // elements from one row of left to the next; 0: all rows share one
  const T* right = nullptr;
  const T* best = nullptr;
  bool best_of_cols = false;
  Activation function = Activation::Identity;
  int order = 0;             // of the derivative, 0 to 2
  Compute<T> parameter = 0;  // of the function
  T* out = nullptr;
  int64_t heads = 1;
  int64_t head_dim = 0;
  Reduce reduce = Reduce::Sum;
  int64_t width() const { return heads * head_dim; }
};

}  // namespace gnna
