// Values of a function of both ends of every edge (PairArgs), included by row_kernels.inl: reduced per row, summed per
// edge and head, or stored. They are computed for one piece of up to kPairVectors vectors at a time, in which the
// function is chosen once.

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

  // Replaces n vectors z by f^(order)(z).
  static inline void apply(Activation f, int order, C parameter, V* z, int n) {
    const auto each = [&](const auto& of) __attribute__((always_inline)) {
      for (int v = 0; v < n; ++v) z[v] = of(z[v]);
    };
    const V zero{}, one = S::broadcast(C(1)), p = S::broadcast(parameter);
    if (f <= Activation::LeakyRelu) {  // two lines
      const V below = f == Activation::Identity ? one : f == Activation::Relu ? zero : p;
      if (order == 0) {
        if (f == Activation::Relu) return each([&](V x) { return x < zero ? zero : x; });  // keeps NaN
        if (f == Activation::LeakyRelu) return each([&](V x) { return x > zero ? x : x * p; });
        return;
      }
      if (order == 1) return each([&](V x) { return x > zero ? one : below; });
      return each([&](V) { return zero; });
    }
    switch (f) {
      case Activation::Elu:
        if (order == 0) return each([&](V x) { return x > zero ? x : p * expm1_nonpositive<C>(x > zero ? zero : x); });
        return each(
            [&](V x) { return x > zero ? (order == 1 ? one : zero) : p * exp_nonpositive<C>(x > zero ? zero : x); });
      case Activation::Gelu:
        if (order == 0) return each([&](V x) { return x * normal(x); });
        if (order == 1) return each([&](V x) { return normal(x) + x * density(x); });
        return each([&](V x) { return (C(2) - x * x) * density(x); });
      case Activation::Silu:
        return each([&](V x) {
          const V s = sigmoid(x), t = one - s;
          return order == 0 ? x * s : order == 1 ? s * (one + x * t) : s * t * (C(2) + x * (t - s));
        });
      case Activation::Sigmoid:
        return each([&](V x) {
          const V s = sigmoid(x), t = one - s;
          return order == 0 ? s : order == 1 ? s * t : s * t * (t - s);
        });
      default:  // Tanh
        return each([&](V x) {
          const V t = tanh(x), d = one - t * t;
          return order == 0 ? t : order == 1 ? d : C(-2) * t * d;
        });
    }
  }
};

// The values of one piece of a row's edges: `whole` vectors and `tail` further elements from `column` on.
template <typename T>
struct PairPiece {
  using S = Simd<T>;
  using V = typename S::Vector;
  using C = typename S::Scalar;

  const PairArgs<T>& args;
  int64_t row, column;
  int whole, tail, count;  // count: vectors, the tail included

  PairPiece(const PairArgs<T>& a, int64_t r, int64_t c, int64_t elements) : args(a), row(r), column(c) {
    const int64_t most = kPairVectors * S::kWidth;
    const int taken = static_cast<int>(elements < most ? elements : most);
    whole = taken / S::kWidth;
    tail = taken % S::kWidth;
    count = whole + (tail > 0 ? 1 : 0);
  }

  int elements() const { return whole * S::kWidth + tail; }

  V load(const T* p, int v) const {
    return v < whole ? S::load(p + v * S::kWidth) : S::load_tail(p + v * S::kWidth, tail);
  }

  template <typename Body>
  inline void each(const T* matrix, int64_t at, const Body& body) const {
    if (matrix == nullptr) return;
    for (int v = 0; v < count; ++v) body(v, load(matrix + at + column, v));
  }

  // Computes the values of one edge, without weight, and without `left` unless with_left.
  inline void values(int64_t slot, int64_t edge, bool with_left, V* z) const {
    const int64_t width = args.width(), col = args.csr.col[slot];
    for (int v = 0; v < count; ++v) z[v] = V{};
    each(args.rows, row * width, [&](int v, V x) { z[v] = x; });
    each(args.cols, col * width, [&](int v, V x) { z[v] += x; });
    each(args.edges, edge * width, [&](int v, V x) { z[v] += x; });
    if (args.best != nullptr) {
      V given[kPairVectors];
      for (int v = 0; v < count; ++v) given[v] = z[v];
      Functions<C>::apply(args.function, 0, args.parameter, given, count);
      if (args.order == 0) {
        for (int v = 0; v < count; ++v) z[v] = S::broadcast(C(1));
      } else {
        Functions<C>::apply(args.function, args.order, args.parameter, z, count);
      }
      each(args.best, (args.best_of_cols ? col : row) * width,
           [&](int v, V best) { z[v] = S::rounded(given[v]) == best ? z[v] : V{}; });
    } else {
      Functions<C>::apply(args.function, args.order, args.parameter, z, count);
    }
    each(args.right, col * width, [&](int v, V x) { z[v] *= x; });
    if (with_left) each(args.left, row * args.left_stride, [&](int v, V x) { z[v] *= x; });
  }

  // Multiplies the values by the edge's weight.
  inline void weigh(int64_t edge, V* z) const {
    if (args.weight == nullptr) return;
    if (args.head_dim == 1) return each(args.weight, edge * args.heads, [&](int v, V w) { z[v] *= w; });
    const C w = S::scalar(args.weight[edge * args.heads + column / args.head_dim]);
    for (int v = 0; v < count; ++v) z[v] *= w;
  }

  void store(T* out, const V* z) const {
    for (int v = 0; v < whole; ++v) S::store(out + column + v * S::kWidth, z[v]);
    if (tail > 0) S::store_tail(out + column + whole * S::kWidth, z[whole], tail);
  }
};

// Calls body(piece) for the pieces of a row. With `by_head`, a piece does not reach beyond its head.
template <typename T, typename Body>
inline void for_pieces(const PairArgs<T>& args, int64_t row, bool by_head, const Body& body) {
  const int64_t span = by_head ? args.head_dim : args.width();
  for (int64_t begin = 0; begin < args.width(); begin += span) {
    for (int64_t column = begin; column < begin + span;) {
      const PairPiece<T> piece(args, row, column, begin + span - column);
      body(piece);
      column += piece.elements();
    }
  }
}

inline int64_t edge_at(const CsrView& csr, int64_t slot) { return csr.perm ? csr.perm[slot] : slot; }

template <typename T>
inline void prefetch_ends(const PairArgs<T>& args, int64_t slot, int64_t column, int count) {
  const int64_t width = args.width(), later = args.csr.col[slot] * width + column;
  for (const T* matrix : {args.cols, args.right, args.best_of_cols ? args.best : nullptr})
    if (matrix) prefetch_row(matrix + later, count * Simd<T>::kWidth);
  if (args.edges && args.csr.perm)
    prefetch_row(args.edges + args.csr.perm[slot] * width + column, count * Simd<T>::kWidth);
}

template <typename T, Reduce kReduce>
void pair_reduce_rows(const PairArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  using V = typename S::Vector;
  constexpr bool kSum = kReduce == Reduce::Sum;
  const CsrView& csr = args.csr;
  const V initial = kSum ? V{} : S::broadcast(kReduce == Reduce::Max ? -__builtin_inf() : __builtin_inf());
  const bool by_head = args.weight != nullptr && args.heads > 1 && args.head_dim > 1;
  const int64_t last = csr.edges - 1, ahead = edges_ahead<T>(csr.cols, args.width());
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(csr, place), begin = csr.rowptr[place], end = csr.rowptr[place + 1];
    for_pieces(args, row, by_head, [&](const PairPiece<T>& piece) {
      V total[kPairVectors], acc[kPairVectors], z[kPairVectors];
      for (int v = 0; v < piece.count; ++v) total[v] = initial;
      for (int64_t chunk = begin; chunk < end; chunk += kChunkEdges) {
        for (int v = 0; v < piece.count; ++v) acc[v] = initial;
        for (int64_t slot = chunk; slot < end && slot < chunk + kChunkEdges; ++slot) {
          prefetch_ends(args, slot + ahead < last ? slot + ahead : last, piece.column, piece.count);
          const int64_t edge = edge_at(csr, slot);
          piece.values(slot, edge, false, z);
          piece.weigh(edge, z);
          for (int v = 0; v < piece.count; ++v) combine<T, kReduce>(acc[v], z[v]);
        }
        for (int v = 0; v < piece.count; ++v) combine<T, kReduce>(total[v], acc[v]);
      }
      if (!kSum && begin == end)
        for (int v = 0; v < piece.count; ++v) total[v] = V{};
      piece.each(args.left, row * args.left_stride, [&](int v, V x) { total[v] *= x; });
      piece.store(args.out + row * args.width(), total);
    });
  }
}

template <typename T>
void pair_reduce(const PairArgs<T>& args, int64_t begin_place, int64_t end_place) {
  if (args.reduce == Reduce::Max) return pair_reduce_rows<T, Reduce::Max>(args, begin_place, end_place);
  if (args.reduce == Reduce::Min) return pair_reduce_rows<T, Reduce::Min>(args, begin_place, end_place);
  pair_reduce_rows<T, Reduce::Sum>(args, begin_place, end_place);
}

// Calls body(edge, piece, values) for all pieces of all edges of the rows.
template <typename T, typename Body>
inline void for_pair_values(const PairArgs<T>& args, bool by_head, int64_t begin_place, int64_t end_place,
                            const Body& body) {
  const CsrView& csr = args.csr;
  const int64_t last = csr.edges - 1, ahead = edges_ahead<T>(csr.cols, args.width());
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(csr, place);
    for (int64_t slot = csr.rowptr[place]; slot < csr.rowptr[place + 1]; ++slot) {
      const int64_t later = slot + ahead < last ? slot + ahead : last, edge = edge_at(csr, slot);
      for_pieces(args, row, by_head, [&](const PairPiece<T>& piece) {
        prefetch_ends(args, later, piece.column, piece.count);
        typename Simd<T>::Vector z[kPairVectors];
        piece.values(slot, edge, true, z);
        body(edge, piece, z);
      });
    }
  }
}

template <typename T>
void pair_dot(const PairArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using V = typename Simd<T>::Vector;
  Compute<T> sum = 0;
  for_pair_values(args, true, begin_place, end_place, [&](int64_t edge, const PairPiece<T>& piece, V* z) {
    if (piece.tail > 0)  // f(0) need not be 0
      for (int i = piece.tail; i < Simd<T>::kWidth; ++i) z[piece.whole][i] = 0;
    V total = z[0];
    for (int v = 1; v < piece.count; ++v) total += z[v];
    const int64_t head = piece.column / args.head_dim, within = piece.column - head * args.head_dim;
    sum = (within == 0 ? 0 : sum) + Simd<T>::sum(total);
    if (within + piece.elements() == args.head_dim) Simd<T>::put(args.out[edge * args.heads + head], sum);
  });
}

template <typename T>
void pair_map(const PairArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using V = typename Simd<T>::Vector;
  const bool by_head = args.weight != nullptr && args.heads > 1 && args.head_dim > 1;
  for_pair_values(args, by_head, begin_place, end_place, [&](int64_t edge, const PairPiece<T>& piece, V* z) {
    piece.weigh(edge, z);
    piece.store(args.out + edge * args.width(), z);
  });
}
