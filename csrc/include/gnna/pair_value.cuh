// The values of the pair ops (PairArgs) on the device: a function of the sum of the features of both ends of an edge,
// and the operands that multiply it.
#pragma once

#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

// These functions need few registers. A kernel for them alone is compiled apart from that for the others, which would
// make it spill.
inline bool is_light(Activation f) { return f <= Activation::Exp; }

// Which operands a kernel reads besides `rows`. kAny: those that are not nullptr, decided when it runs.
constexpr unsigned kCols = 1, kEdges = 2, kRight = 4, kWeight = 8, kBest = 16, kAny = 32;

template <unsigned kGiven, unsigned kOperand, typename T>
__device__ __forceinline__ bool has(const T* operand) {
  if constexpr ((kGiven & kAny) != 0) return operand != nullptr;
  return (kGiven & kOperand) != 0;
}

// Replaces N packs z by f^(order)(z), see Activation. The function is chosen once for all of them.
template <bool kLight, typename C, int VW, int N>
__device__ __forceinline__ void activate(Activation f, int order, C parameter, Pack<C, VW> (&z)[N]) {
  const C zero = 0, one = 1, two = 2;
  const auto each = [&](const auto& of) {
#pragma unroll
    for (int u = 0; u < N; ++u) {
#pragma unroll
      for (int i = 0; i < VW; ++i) z[u].v[i] = of(z[u].v[i]);
    }
  };
  switch (f) {
    case Activation::Identity:
      if (order > 0) each([&](C) { return order == 1 ? one : zero; });
      return;
    case Activation::Relu:
      if (order == 0) return each([&](C x) { return x < zero ? zero : x; });  // keeps NaN
      return each([&](C x) { return order == 1 && x > zero ? one : zero; });
    case Activation::LeakyRelu:
      if (order == 0) return each([&](C x) { return x > zero ? x : x * parameter; });
      return each([&](C x) { return order == 2 ? zero : x > zero ? one : parameter; });
    case Activation::Square:
      return each([&](C x) { return order == 0 ? x * x : order == 1 ? x + x : two; });
    case Activation::Exp:
      return each([&](C x) { return exponential(x); });
    default:
      break;
  }
  if constexpr (kLight) return;
  switch (f) {
    case Activation::Elu:
      return each([&](C x) {
        if (x > zero) return order == 0 ? x : order == 1 ? one : zero;
        return parameter * (order == 0 ? expm1(x) : exponential(x));
      });
    case Activation::Gelu:
      return each([&](C x) {
        const C normal = erfc(x * C(-0.70710678118654752440)) / two;
        if (order == 0) return x * normal;
        const C density = exponential(x * x * C(-0.5)) * C(0.39894228040143267794);
        return order == 1 ? normal + x * density : (two - x * x) * density;
      });
    case Activation::Tanh:
      return each([&](C x) {
        const C t = tanh(x), d = one - t * t;
        return order == 0 ? t : order == 1 ? d : -two * t * d;
      });
    default:  // Silu, Sigmoid
      return each([&](C x) {
        const C e = exponential(x > zero ? -x : x), s = (x > zero ? one : e) / (one + e), t = one - s;
        if (f == Activation::Sigmoid) return order == 0 ? s : order == 1 ? s * t : s * t * (t - s);
        return order == 0 ? x * s : order == 1 ? s * (one + x * t) : s * t * (two + x * (t - s));
      });
  }
}

// Loads VW elements of an operand, or zeros if it is absent.
template <int VW, typename T>
__device__ __forceinline__ Pack<Compute<T>, VW> load_if_given(const T* p, int64_t at) {
  if (p == nullptr) return {};
  return load_pack<VW>(p + at);
}

template <typename C, int VW>
__device__ __forceinline__ void add_to(Pack<C, VW>& a, const Pack<C, VW>& b) {
#pragma unroll
  for (int i = 0; i < VW; ++i) a.v[i] += b.v[i];
}

template <typename C, int VW>
__device__ __forceinline__ void multiply(Pack<C, VW>& a, const Pack<C, VW>& b) {
#pragma unroll
  for (int i = 0; i < VW; ++i) a.v[i] *= b.v[i];
}

// Replaces z by f(z) == best ? f^(order)(z) : 0, where order 0 counts as 1.
template <bool kLight, int VW, int N, typename T>
__device__ __forceinline__ void select_winners(const PairArgs<T>& args, int64_t row, const int64_t (&col)[N],
                                               Pack<Compute<T>, VW> (&z)[N]) {
  using C = Compute<T>;
  Pack<C, VW> given[N];
#pragma unroll
  for (int u = 0; u < N; ++u) given[u] = z[u];
  activate<kLight>(args.function, 0, args.parameter, given);
  if (args.order > 0) activate<kLight>(args.function, args.order, args.parameter, z);
#pragma unroll
  for (int u = 0; u < N; ++u) {
    const Pack<C, VW> best = load_pack<VW>(args.best + (args.best_of_cols ? col[u] : row));
#pragma unroll
    for (int i = 0; i < VW; ++i) {
      const C factor = args.order == 0 ? C(1) : z[u].v[i];
      z[u].v[i] = rounded_to<T>(given[u].v[i]) == best.v[i] ? factor : C(0);
    }
  }
}

// Computes the values of VW elements of N edges without weight and left. of_row is the operand `rows` there; row, col
// and edge are the offsets of the elements in matrices of the rows, columns and edges. All operands are loaded before
// any is used, so that their loads are in flight together.
template <unsigned kGiven, bool kLight, int VW, int N, typename T>
__device__ __forceinline__ void pair_values(const PairArgs<T>& args, const Pack<Compute<T>, VW>& of_row, int64_t row,
                                            const int64_t (&col)[N], const int64_t (&edge)[N],
                                            Pack<Compute<T>, VW> (&value)[N]) {
  using C = Compute<T>;
  Pack<C, VW> of_col[N]{}, of_edge[N]{}, right[N];
  if (has<kGiven, kCols>(args.cols)) {
#pragma unroll
    for (int u = 0; u < N; ++u) of_col[u] = load_pack<VW>(args.cols + col[u]);
  }
  if (has<kGiven, kEdges>(args.edges)) {
#pragma unroll
    for (int u = 0; u < N; ++u) of_edge[u] = load_pack<VW>(args.edges + edge[u]);
  }
  if (has<kGiven, kRight>(args.right)) {
#pragma unroll
    for (int u = 0; u < N; ++u) right[u] = load_pack<VW>(args.right + col[u]);
  }
#pragma unroll
  for (int u = 0; u < N; ++u) {
    value[u] = of_row;
    if ((kGiven & (kCols | kAny)) != 0) add_to(value[u], of_col[u]);
    if ((kGiven & (kEdges | kAny)) != 0) add_to(value[u], of_edge[u]);
  }
  if (has<kGiven, kBest>(args.best)) {
    select_winners<kLight>(args, row, col, value);
  } else {
    activate<kLight>(args.function, args.order, args.parameter, value);
  }
  if (!has<kGiven, kRight>(args.right)) return;
#pragma unroll
  for (int u = 0; u < N; ++u) multiply(value[u], right[u]);
}

// Returns whether every operand can be read VW = kVectorWidth elements at a time, if pieces of `unit` elements stay
// together.
template <typename T>
bool can_vectorise(const PairArgs<T>& args, int64_t unit) {
  bool aligned = unit % kVectorWidth<T> == 0;
  const T* const operands[] = {args.rows, args.cols, args.edges, args.left, args.right, args.best, args.out};
  for (const T* p : operands) aligned = aligned && is_aligned(p, kVectorBytes);
  return aligned;
}

// Multiplies VW elements from `column` on by the weight of an edge.
template <int VW, typename T, typename C>
__device__ __forceinline__ void weigh(const PairArgs<T>& args, int64_t edge, int64_t column, Pack<C, VW>& value) {
  if (args.weight == nullptr) return;
  const T* const weight = args.weight + edge * args.heads;
  if (args.head_dim == 1) {
#pragma unroll
    for (int i = 0; i < VW; ++i) value.v[i] *= widen(load_one(weight + column + i));
    return;
  }
  const C of_head = widen(load_one(weight + (args.heads == 1 ? 0 : column / args.head_dim)));
#pragma unroll
  for (int i = 0; i < VW; ++i) value.v[i] *= of_head;
}

// Returns how many neighbouring elements share the operands' layout: a head if there is a weight for each.
template <typename T>
int64_t unit_of(const PairArgs<T>& args) {
  return args.weight != nullptr && args.heads > 1 && args.head_dim > 1 ? args.head_dim : args.heads * args.head_dim;
}

template <typename T>
bool is_valid(const PairArgs<T>& args) {
  const CsrView& csr = args.csr;
  return csr.rows >= 0 && csr.rows <= kMaxIndex && csr.edges >= 0 && csr.edges <= kMaxIndex && args.heads >= 0 &&
         args.head_dim >= 0 && args.heads * args.head_dim <= kMaxIndex;
}

}  // namespace gnna::cuda
