// The values of the pair ops (PairArgs) on the device: a function of the sum of the features of both ends of an edge,
// and the operands that multiply it.
#pragma once

#include "gnna/launch.cuh"
#include "gnna/pack.cuh"

namespace gnna::cuda {

// Returns f^(order)(z), see Activation.
template <typename C>
__device__ __forceinline__ C activation(Activation f, int order, C parameter, C z) {
  const C zero = 0, one = 1, two = 2;
  switch (f) {
    case Activation::Identity:
      return order == 0 ? z : order == 1 ? one : zero;
    case Activation::Relu:
      return order == 0 ? (z < zero ? zero : z) : order == 1 && z > zero ? one : zero;  // order 0 keeps NaN
    case Activation::LeakyRelu:
      if (order == 0) return z > zero ? z : z * parameter;
      return order == 1 ? (z > zero ? one : parameter) : zero;
    case Activation::Elu:
      if (z > zero) return order == 0 ? z : order == 1 ? one : zero;
      return parameter * (order == 0 ? expm1(z) : exponential(z));
    case Activation::Gelu: {
      const C normal = erfc(z * C(-0.70710678118654752440)) / two;
      if (order == 0) return z * normal;
      const C density = exponential(z * z * C(-0.5)) * C(0.39894228040143267794);
      return order == 1 ? normal + z * density : (two - z * z) * density;
    }
    case Activation::Tanh: {
      const C t = tanh(z);
      return order == 0 ? t : order == 1 ? one - t * t : -two * t * (one - t * t);
    }
    default: {  // Silu, Sigmoid
      const C e = exponential(z > zero ? -z : z), s = (z > zero ? one : e) / (one + e), t = one - s;
      if (f == Activation::Sigmoid) return order == 0 ? s : order == 1 ? s * t : s * t * (t - s);
      return order == 0 ? z * s : order == 1 ? s * (one + z * t) : s * t * (two + z * (t - s));
    }
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

// Returns the value of VW elements of an edge without weight and left. of_row is the operand `rows` there; row, col and
// edge are the offsets of the elements in matrices of the rows, columns and edges.
template <int VW, typename T>
__device__ __forceinline__ Pack<Compute<T>, VW> pair_value(const PairArgs<T>& args, const Pack<Compute<T>, VW>& of_row,
                                                           int64_t row, int64_t col, int64_t edge) {
  using C = Compute<T>;
  Pack<C, VW> z = of_row;
  add_to(z, load_if_given<VW>(args.cols, col));
  add_to(z, load_if_given<VW>(args.edges, edge));
  Pack<C, VW> value;
  if (args.best != nullptr) {
    const Pack<C, VW> best = load_pack<VW>(args.best + (args.best_of_cols ? col : row));
#pragma unroll
    for (int i = 0; i < VW; ++i) {
      const bool won = rounded_to<T>(activation(args.function, 0, args.parameter, z.v[i])) == best.v[i];
      const C factor = args.order == 0 ? C(1) : activation(args.function, args.order, args.parameter, z.v[i]);
      value.v[i] = won ? factor : C(0);
    }
  } else {
#pragma unroll
    for (int i = 0; i < VW; ++i) value.v[i] = activation(args.function, args.order, args.parameter, z.v[i]);
  }
  if (args.right != nullptr) multiply(value, load_pack<VW>(args.right + col));
  return value;
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
