// Values of a function of both ends of every edge (PairArgs), included by row_kernels.inl: reduced per row, summed per
// edge and head, or stored. A tile of up to kPairVectors vectors is computed in registers, for which the function is
// chosen once.

constexpr int kPairVectors = 4;

// Returns exp(x) - 1 for x <= 0 or NaN, to about two units in the last place, also where it is near 0.
template <typename C>
inline typename Simd<C>::Vector expm1_nonpositive(typename Simd<C>::Vector x) {
  using V = typename Simd<C>::Vector;
  // Near 0 the Taylor series itself; elsewhere the subtraction loses at most one bit.
  constexpr int kDegree = sizeof(C) == 4 ? 9 : 17;
  static constexpr TaylorOfExp<C, kDegree> kTaylor;
  V near = Simd<C>::broadcast(kTaylor.at[kDegree]);
  const V bounded = x < C(-0.7) ? Simd<C>::broadcast(C(-0.7)) : x;
  for (int k = kDegree - 1; k >= 1; --k) near = near * bounded + kTaylor.at[k];
  const V far = exp_nonpositive<C>(x) - C(1);
  return x < C(-0.7) ? far : near * bounded;
}

template <typename C>
struct Functions {
  using S = Simd<C>;
  using V = typename S::Vector;

  static inline V sigmoid(V z) {
    const V e = exp_nonpositive<C>(z > C(0) ? -z : z);
    return (z > C(0) ? S::broadcast(C(1)) : e) / (C(1) + e);
  }

  static inline V tanh(V z) {
    const V m = expm1_nonpositive<C>(z > C(0) ? C(-2) * z : C(2) * z);
    const V t = m / (C(2) + m);
    return z > C(0) ? -t : t;
  }

  // The distribution function of the normal distribution, and its density.
  static inline V normal(V z) {
    V r;
    for (int i = 0; i < S::kWidth; ++i) r[i] = std::erfc(z[i] * C(-0.70710678118654752440)) / 2;
    return r;
  }
  static inline V density(V z) {
    const V square = z * z * C(-0.5);
    return exp_nonpositive<C>(square) * C(0.39894228040143267794);
  }

  // Replace the vectors z by f^(order)(z).
  template <int kVectors>
  static inline void apply(Activation f, int order, C parameter, V (&z)[kVectors]) {
    const auto each = [&](const auto& of) __attribute__((always_inline)) {
      for (int v = 0; v < kVectors; ++v) z[v] = of(z[v]);
    };
    const V zero{}, one = S::broadcast(C(1)), p = S::broadcast(parameter);
    switch (f) {
      case Activation::Identity:
        if (order > 0) each([&](V) { return order == 1 ? one : zero; });
        return;
      case Activation::Relu:
        if (order == 0) return each([&](V x) { return x < zero ? zero : x; });  // keeps NaN
        return each([&](V x) { return order == 2 ? zero : x > zero ? one : zero; });
      case Activation::LeakyRelu:
        if (order == 0) return each([&](V x) { return x > zero ? x : x * p; });
        return each([&](V x) { return order == 2 ? zero : x > zero ? one : p; });
      case Activation::Square:
        return each([&](V x) { return order == 0 ? x * x : order == 1 ? x + x : one + one; });
      default:
        for (int v = 0; v < kVectors; ++v) z[v] = apply_heavy(f, order, parameter, z[v]);
    }
  }

  // The functions with exponentials. Not inlined, because many kernels call them.
  static __attribute__((noinline)) V apply_heavy(Activation f, int order, C parameter, V x) {
    const V zero{}, one = S::broadcast(C(1)), p = S::broadcast(parameter);
    switch (f) {
      case Activation::Exp: {
        const V e = exp_nonpositive<C>(x > zero ? -x : x);
        return x > zero ? one / e : e;
      }
      case Activation::Elu: {
        const V below = x > zero ? zero : x;
        if (order == 0) return x > zero ? x : p * expm1_nonpositive<C>(below);
        return x > zero ? (order == 1 ? one : zero) : p * exp_nonpositive<C>(below);
      }
      case Activation::Gelu:
        if (order == 0) return x * normal(x);
        return order == 1 ? normal(x) + x * density(x) : (C(2) - x * x) * density(x);
      case Activation::Tanh: {
        const V t = tanh(x), d = one - t * t;
        return order == 0 ? t : order == 1 ? d : C(-2) * t * d;
      }
      default: {  // Silu, Sigmoid
        const V s = sigmoid(x), t = one - s;
        if (f == Activation::Sigmoid) return order == 0 ? s : order == 1 ? s * t : s * t * (t - s);
        return order == 0 ? x * s : order == 1 ? s * (one + x * t) : s * t * (C(2) + x * (t - s));
      }
    }
  }
};

// kVectors vectors of a row's edges from `column` on, of which the last holds `last` elements.
template <typename T, int kVectors>
struct PairTile {
  using S = Simd<T>;
  using V = typename S::Vector;
  using C = typename S::Scalar;
  using Vectors = V[kVectors];

  const PairArgs<T>& args;
  int64_t column;
  int last;

  template <typename Body>
  inline void each(const T* matrix, int64_t at, const Body& body) const {
    if (matrix == nullptr) return;
    const T* const from = matrix + at + column;
    for (int v = 0; v < kVectors - 1; ++v) body(v, S::load(from + v * S::kWidth));
    body(kVectors - 1, S::load_some(from + (kVectors - 1) * S::kWidth, last));
  }

  // Computes the values of one edge, without weight, and without `left` unless with_left. Not inlined, because this
  // would take minutes to compile.
  __attribute__((noinline)) void values(int64_t row, int64_t col, int64_t edge, bool with_left,
                                        V (&z)[kVectors]) const {
    const int64_t width = args.width();
    for (int v = 0; v < kVectors; ++v) z[v] = V{};
    each(args.rows, row * width, [&](int v, V x) { z[v] = x; });
    each(args.cols, col * width, [&](int v, V x) { z[v] += x; });
    each(args.edges, edge * width, [&](int v, V x) { z[v] += x; });
    if (args.best == nullptr) {
      Functions<C>::apply(args.function, args.order, args.parameter, z);
    } else {
      select_winners(row, col, z);
    }
    each(args.right, col * width, [&](int v, V x) { z[v] *= x; });
    if (with_left) each(args.left, row * args.left_stride, [&](int v, V x) { z[v] *= x; });
  }

  // Replaces z by f(z) == best ? f^(order)(z) : 0, where order 0 counts as 1.
  inline void select_winners(int64_t row, int64_t col, V (&z)[kVectors]) const {
    V given[kVectors];
    for (int v = 0; v < kVectors; ++v) given[v] = z[v];
    Functions<C>::apply(args.function, 0, args.parameter, given);
    if (args.order > 0) Functions<C>::apply(args.function, args.order, args.parameter, z);
    each(args.best, (args.best_of_cols ? col : row) * args.width(), [&](int v, V best) {
      z[v] = S::rounded(given[v]) == best ? (args.order == 0 ? S::broadcast(C(1)) : z[v]) : V{};
    });
  }

  // Multiplies the values by the edge's weight.
  inline void weigh(int64_t edge, V (&z)[kVectors]) const {
    if (args.weight == nullptr) return;
    const T* const weight = args.weight + edge * args.heads;
    if (args.heads == 1) {
      for (int v = 0; v < kVectors; ++v) z[v] *= S::scalar(weight[0]);
    } else if (args.head_dim == 1) {
      each(args.weight, edge * args.heads, [&](int v, V w) { z[v] *= w; });
    } else {
      int64_t head = column / args.head_dim, left = (head + 1) * args.head_dim - column;  // elements of this head
      for (int v = 0; v < kVectors; ++v) {
        V w{};
        for (int begin = 0; begin < S::kWidth;) {
          const C of_head = head < args.heads ? S::scalar(weight[head]) : C(0);
          int end = begin + static_cast<int>(left < S::kWidth ? left : S::kWidth);
          if (end > S::kWidth) end = S::kWidth;
          if (begin == 0) w = S::broadcast(of_head);
          for (int i = begin; begin > 0 && i < end; ++i) w[i] = of_head;
          left -= end - begin;
          begin = end;
          if (left == 0) {
            ++head;
            left = args.head_dim;
          }
        }
        z[v] *= w;
      }
    }
  }

  void store(T* out, const V (&z)[kVectors]) const {
    for (int v = 0; v < kVectors - 1; ++v) S::store(out + column + v * S::kWidth, z[v]);
    S::store_some(out + column + (kVectors - 1) * S::kWidth, z[kVectors - 1], last);
  }

  // The rows of a column that is used later.
  inline void prefetch(int64_t col) const {
    const int64_t later = col * args.width() + column;
    for (const T* matrix : {args.cols, args.right, args.best_of_cols ? args.best : nullptr})
      if (matrix) prefetch_row(matrix + later, kVectors * S::kWidth);
  }
  inline void prefetch_slot(int64_t slot) const {
    prefetch(args.csr.col[slot]);
    if (args.edges && args.csr.perm)
      prefetch_row(args.edges + args.csr.perm[slot] * args.width() + column, kVectors * S::kWidth);
  }
};

// Calls body(tile) for the tiles of a row, of kPairVectors vectors while the width allows and then of one.
template <typename T, typename Body>
inline void for_tiles(const PairArgs<T>& args, const Body& body) {
  constexpr int kWidth = Simd<T>::kWidth;
  int64_t column = 0;
  for (; column + kPairVectors * kWidth <= args.width(); column += kPairVectors * kWidth)
    body(PairTile<T, kPairVectors>{args, column, kWidth});
  for (; column < args.width(); column += kWidth) {
    const int64_t left = args.width() - column;
    body(PairTile<T, 1>{args, column, static_cast<int>(left < kWidth ? left : kWidth)});
  }
}

inline int64_t edge_at(const CsrView& csr, int64_t slot) { return csr.perm ? csr.perm[slot] : slot; }

template <typename T, Reduce kReduce, int kVectors>
inline void reduce_row(const PairTile<T, kVectors>& tile, int64_t row, int64_t begin, int64_t end, int64_t ahead) {
  using S = Simd<T>;
  using V = typename S::Vector;
  constexpr bool kSum = kReduce == Reduce::Sum;
  const PairArgs<T>& args = tile.args;
  const CsrView& csr = args.csr;
  const V initial = kSum ? V{} : S::broadcast(kReduce == Reduce::Max ? -__builtin_inf() : __builtin_inf());
  const int64_t last = csr.edges - 1;
  V total[kVectors], acc[kVectors], z[kVectors];
  for (int v = 0; v < kVectors; ++v) total[v] = initial;
  for (int64_t chunk = begin; chunk < end; chunk += kChunkEdges) {
    for (int v = 0; v < kVectors; ++v) acc[v] = initial;
    for (int64_t slot = chunk; slot < end && slot < chunk + kChunkEdges; ++slot) {
      tile.prefetch_slot(slot + ahead < last ? slot + ahead : last);
      const int64_t edge = edge_at(csr, slot);
      tile.values(row, csr.col[slot], edge, false, z);
      tile.weigh(edge, z);
      for (int v = 0; v < kVectors; ++v) combine<T, kReduce>(acc[v], z[v]);
    }
    for (int v = 0; v < kVectors; ++v) combine<T, kReduce>(total[v], acc[v]);
  }
  if (!kSum && begin == end)
    for (int v = 0; v < kVectors; ++v) total[v] = V{};
  tile.each(args.left, row * args.left_stride, [&](int v, V x) { total[v] *= x; });
  tile.store(args.out + row * args.width(), total);
}

template <typename T, Reduce kReduce>
void pair_reduce_rows(const PairArgs<T>& args, int64_t begin_place, int64_t end_place) {
  const CsrView& csr = args.csr;
  const int64_t ahead = edges_ahead<T>(csr.cols, args.width());
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(csr, place), begin = csr.rowptr[place], end = csr.rowptr[place + 1];
    for_tiles(args, [&](const auto& tile) { reduce_row<T, kReduce>(tile, row, begin, end, ahead); });
  }
}

template <typename T>
void pair_reduce(const PairArgs<T>& args, int64_t begin_place, int64_t end_place) {
  if (args.reduce == Reduce::Max) return pair_reduce_rows<T, Reduce::Max>(args, begin_place, end_place);
  if (args.reduce == Reduce::Min) return pair_reduce_rows<T, Reduce::Min>(args, begin_place, end_place);
  pair_reduce_rows<T, Reduce::Sum>(args, begin_place, end_place);
}

template <typename T>
void pair_dot(const PairArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using C = Compute<T>;
  using S = Simd<C>;
  const CsrView& csr = args.csr;
  const int64_t last = csr.edges - 1, ahead = edges_ahead<T>(csr.cols, args.width());
  std::vector<C> values(args.width() + S::kWidth);  // of one edge
  const auto dot = [&](int64_t row, int64_t slot) {
    const int64_t edge = edge_at(csr, slot);
    for_tiles(args, [&](const auto& tile) {
      tile.prefetch_slot(slot + ahead < last ? slot + ahead : last);
      typename std::decay_t<decltype(tile)>::Vectors z;
      tile.values(row, csr.col[slot], edge, true, z);
      C* const to = values.data() + tile.column;
      for (size_t v = 0; v < sizeof z / sizeof z[0]; ++v) S::store(to + v * S::kWidth, z[v]);
    });
    for (int64_t head = 0; head < args.heads; ++head) {
      const C* const first = values.data() + head * args.head_dim;
      C sum = 0;
      int64_t i = 0;
      if (args.head_dim >= S::kWidth) {
        typename S::Vector total{};
        for (; i + S::kWidth <= args.head_dim; i += S::kWidth) total += S::load(first + i);
        sum = S::sum(total);
      }
      for (; i < args.head_dim; ++i) sum += first[i];
      Simd<T>::put(args.out[edge * args.heads + head], sum);
    }
  };
  for (int64_t place = begin_place; place < end_place; ++place)
    for (int64_t slot = csr.rowptr[place]; slot < csr.rowptr[place + 1]; ++slot) dot(row_at(csr, place), slot);
}

// In the order of the user's list, in which the largest operands and the result are stored.
template <typename T>
void pair_map(const int64_t* src, const int64_t* dst, const PairArgs<T>& args, int64_t begin_edge, int64_t end_edge) {
  const int64_t ahead = edges_ahead<T>(args.csr.cols, args.width());
  for (int64_t edge = begin_edge; edge < end_edge; ++edge) {
    const int64_t later = edge + ahead < end_edge ? src[edge + ahead] : src[edge];
    for_tiles(args, [&](const auto& tile) {
      tile.prefetch(later);
      typename std::decay_t<decltype(tile)>::Vectors z;
      tile.values(dst[edge], src[edge], edge, true, z);
      tile.weigh(edge, z);
      tile.store(args.out + edge * args.width(), z);
    });
  }
}
