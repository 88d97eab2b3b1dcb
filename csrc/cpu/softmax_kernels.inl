// Softmax over the edges of a row, and its gradient. The scores of a row are brought together in a buffer that stays in
// the L1 cache, where maximum, exponentials and sum are computed on whole vectors, whatever order the user's edges
// have: memory sees every score once and every result once. A row beyond the buffer is read again for each of the three
// steps.

constexpr int64_t kBufferedScores = 4096;

// The coefficients of exp's Taylor series.
template <typename C, int kDegree>
struct TaylorOfExp {
  C at[kDegree + 1] = {};
  constexpr TaylorOfExp() {
    double factorial = 1;
    for (int k = 0; k <= kDegree; factorial *= ++k) at[k] = static_cast<C>(1 / factorial);
  }
};

// exp(x) for x <= 0 or NaN, to about one unit in the last place; below the smallest subnormal it is 0. x = n ln 2 + r
// with |r| <= ln 2 / 2, Taylor's series for r, and 2^n in two factors, so that subnormal results are kept.
template <typename C>
inline typename Simd<C>::Vector exp_nonpositive(typename Simd<C>::Vector x) {
  using S = Simd<C>;
  using V = typename S::Vector;
  constexpr bool kFloat = sizeof(C) == 4;
  using Int = std::conditional_t<kFloat, int32_t, int64_t>;
  using Bits = std::conditional_t<kFloat, uint32_t, uint64_t>;
  typedef Int IntVector __attribute__((vector_size(GNNA_VECTOR_BYTES)));
  typedef Bits BitsVector __attribute__((vector_size(GNNA_VECTOR_BYTES)));
  constexpr C kLowest = kFloat ? -150 : -1000;                // whose exponential is 0 already
  constexpr C kRounder = kFloat ? C(0x1.8p23) : C(0x1.8p52);  // added to a small number, it leaves an integer below
  constexpr C kLn2High = kFloat ? C(0.693359375) : C(6.93145751953125e-1);
  constexpr C kLn2Low = kFloat ? C(-2.12194440054690583e-4) : C(1.42860682030941723e-6);
  constexpr int kDegree = kFloat ? 7 : 13, kBias = kFloat ? 127 : 1023, kMantissa = kFloat ? 23 : 52;

  x = x < kLowest ? S::broadcast(kLowest) : x;
  const V rounded = x * C(1.44269504088896340736) + kRounder;
  const V whole = rounded - kRounder;
  const V r = (x - whole * kLn2High) - whole * kLn2Low;
  const IntVector n = (IntVector)rounded - (IntVector)S::broadcast(kRounder);
  static constexpr TaylorOfExp<C, kDegree> kTaylor;
  V sum = S::broadcast(kTaylor.at[kDegree]);
  for (int k = kDegree - 1; k >= 0; --k) sum = sum * r + kTaylor.at[k];
  const IntVector half = n >> 1;
  const V low = (V)((BitsVector)(half + kBias) << kMantissa), high = (V)((BitsVector)(n - half + kBias) << kMantissa);
  return sum * low * high;
}

// The scores of some edges of a row: [edges, stride] in what T is computed in. The stride is the heads rounded up so
// that it divides a vector, or is a multiple of one; then every vector's lanes belong to the same heads as those of the
// vector `parts` before. kHeads is the number of heads where that is known when this is compiled, else 0.
template <typename T, int kHeads>
class ScoreBuffer {
 public:
  using C = Compute<T>;
  using S = Simd<C>;
  using V = typename S::Vector;

  explicit ScoreBuffer(int64_t heads) : heads_(heads), stride_(1) {
    while (stride_ < S::kWidth && stride_ < heads) stride_ *= 2;
    if (stride_ < heads) stride_ = (heads + S::kWidth - 1) / S::kWidth * S::kWidth;
    per_vector_ = stride_ < S::kWidth ? S::kWidth / stride_ : 1;
    capacity_ = kBufferedScores / stride_ / per_vector_ * per_vector_;
    if (capacity_ == 0) capacity_ = 1;
    values_.resize(static_cast<size_t>(capacity_ * stride_));
  }

  int64_t capacity() const { return capacity_; }                                   // in edges
  int64_t parts() const { return stride_ > S::kWidth ? stride_ / S::kWidth : 1; }  // vectors per edge
  int64_t vectors(int64_t edges) const { return (edges + per_vector_ - 1) / per_vector_ * parts(); }
  V load(int64_t vector) const { return S::load(values_.data() + vector * S::kWidth); }
  void store(int64_t vector, V value) { S::store(values_.data() + vector * S::kWidth, value); }

  // The values of the slots [begin, end); `filler` completes the last vector.
  void gather(const CsrView& csr, const T* from, int64_t begin, int64_t end, C filler) {
    const int64_t heads = kHeads ? kHeads : heads_, stride = kHeads ? kHeads : stride_;
    C* to = values_.data();
    for (int64_t slot = begin; slot < end; ++slot, to += stride) {
      const T* source = from + (csr.perm ? csr.perm[slot] : slot) * heads;
      for (int64_t h = 0; h < heads; ++h) to[h] = Simd<T>::scalar(source[h]);
    }
    for (C* last = values_.data() + vectors(end - begin) * S::kWidth; to < last; ++to) *to = filler;
  }

  void scatter(const CsrView& csr, T* to, int64_t begin, int64_t end) const {
    const int64_t heads = kHeads ? kHeads : heads_, stride = kHeads ? kHeads : stride_;
    const C* from = values_.data();
    for (int64_t slot = begin; slot < end; ++slot, from += stride) {
      T* target = to + (csr.perm ? csr.perm[slot] : slot) * heads;
      for (int64_t h = 0; h < heads; ++h) Simd<T>::put(target[h], from[h]);
    }
  }

  // Calls body(vector, state) for all vectors of the first `edges` edges, one part after another: the state of a part
  // is in a register meanwhile, from part_begin(part) to part_end(part, state).
  template <typename Begin, typename Body, typename End>
  void for_vectors(int64_t edges, const Begin& part_begin, const Body& body, const End& part_end) const {
    const int64_t count = vectors(edges), step = parts();
    for (int64_t part = 0; part < step; ++part) {
      V state = part_begin(part);
      for (int64_t v = part; v < count; v += step) body(v, state);
      part_end(part, state);
    }
  }

  // Every lane of `total` [parts vectors] gets what `reduce` makes of all lanes of its head.
  template <typename Reduction>
  void fold(C* total, const Reduction& reduce) const {
    if (per_vector_ == 1) return;
    for (int64_t width = S::kWidth / 2; width >= stride_; width /= 2)
      for (int64_t i = 0; i < width; ++i) total[i] = reduce(total[i], total[i + width]);
    for (int64_t i = stride_; i < S::kWidth; ++i) total[i] = total[i - stride_];
  }

 private:
  int64_t heads_, stride_, per_vector_ = 1, capacity_ = 1;
  std::vector<C> values_;
};

// Both ends of an edge feature are far apart in the user's order: what the rows ahead will read and write.
template <typename T>
inline void prefetch_edges(const CsrView& csr, int64_t begin, int64_t end, int64_t heads, const T* first,
                           const T* second, T* written) {
  if (!csr.perm) return;  // in the processor's own hands
  for (int64_t slot = begin + kPrefetchEdges; slot < end + kPrefetchEdges && slot < csr.edges; ++slot) {
    const int64_t at = csr.perm[slot] * heads;
    __builtin_prefetch(first + at, 0, 3);
    if (second) __builtin_prefetch(second + at, 0, 3);
    __builtin_prefetch(written + at, 1, 3);
  }
}

// One value per lane and part: what a head's scores are reduced to.
template <typename C>
class Totals {
 public:
  using S = Simd<C>;
  using V = typename S::Vector;

  explicit Totals(int64_t parts) : values_(static_cast<size_t>(parts * S::kWidth)) {}
  C* data() { return values_.data(); }
  V load(int64_t part) const { return S::load(values_.data() + part * S::kWidth); }
  void store(int64_t part, V value) { S::store(values_.data() + part * S::kWidth, value); }
  void fill(C value) {
    for (C& v : values_) v = value;
  }

 private:
  std::vector<C> values_;
};

template <typename T, int kHeads>
void softmax_rows(const SegmentSoftmaxArgs<T>& args, int64_t row_begin, int64_t row_end) {
  using C = Compute<T>;
  using V = typename Simd<C>::Vector;
  constexpr C kNothing = -__builtin_inf();
  const CsrView& csr = args.csr;
  ScoreBuffer<T, kHeads> scores(args.heads);
  Totals<C> most(scores.parts()), sum(scores.parts());
  const V zero{};
  const auto none = [&](int64_t) { return zero; };  // captures, or GCC would want a plain function of it as well
  const auto of_most = [&](int64_t part) { return most.load(part); };
  const auto nothing_left = [](int64_t, const V&) {};
  const auto exponentiate = [&](int64_t edges) {
    scores.for_vectors(
        edges, of_most, [&](int64_t v, const V& m) { scores.store(v, exp_nonpositive<C>(scores.load(v) - m)); },
        nothing_left);
  };

  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t begin = csr.rowptr[row], end = csr.rowptr[row + 1];
    const bool fits = end - begin <= scores.capacity();
    const auto for_chunks = [&](const auto& body) {
      for (int64_t slot = begin; slot < end; slot += scores.capacity())
        body(slot, end - slot > scores.capacity() ? slot + scores.capacity() : end);
    };
    prefetch_edges<T>(csr, begin, end, args.heads, args.scores, nullptr, args.out);

    most.fill(kNothing);
    for_chunks([&](int64_t slot, int64_t stop) {
      scores.gather(csr, args.scores, slot, stop, kNothing);
      scores.for_vectors(
          stop - slot, of_most, [&](int64_t v, V& m) { combine<C, Reduce::Max>(m, scores.load(v)); },
          [&](int64_t part, const V& m) { most.store(part, m); });
    });
    scores.fold(most.data(), [](C a, C b) { return (b > a || b != b) ? b : a; });

    sum.fill(0);
    for_chunks([&](int64_t slot, int64_t stop) {
      if (!fits) scores.gather(csr, args.scores, slot, stop, kNothing);
      exponentiate(stop - slot);
      scores.for_vectors(
          stop - slot, none, [&](int64_t v, V& s) { s += scores.load(v); },
          [&](int64_t part, const V& s) { sum.store(part, sum.load(part) + s); });
    });
    scores.fold(sum.data(), [](C a, C b) { return a + b; });

    for_chunks([&](int64_t slot, int64_t stop) {
      if (!fits) {
        scores.gather(csr, args.scores, slot, stop, kNothing);
        exponentiate(stop - slot);
      }
      scores.for_vectors(
          stop - slot, [&](int64_t part) { return sum.load(part); },
          [&](int64_t v, const V& s) { scores.store(v, scores.load(v) / s); }, nothing_left);
      scores.scatter(csr, args.out, slot, stop);
    });
  }
}

template <typename T, int kHeads>
void softmax_backward_rows(const SegmentSoftmaxBackwardArgs<T>& args, int64_t row_begin, int64_t row_end) {
  using C = Compute<T>;
  using V = typename Simd<C>::Vector;
  const CsrView& csr = args.csr;
  ScoreBuffer<T, kHeads> out(args.heads), grad(args.heads);
  Totals<C> sum(out.parts());
  const V zero{};
  const auto none = [&](int64_t) { return zero; };

  for (int64_t row = row_begin; row < row_end; ++row) {
    const int64_t begin = csr.rowptr[row], end = csr.rowptr[row + 1];
    const bool fits = end - begin <= out.capacity();
    const auto gather = [&](int64_t slot, int64_t stop) {
      out.gather(csr, args.out, slot, stop, 0);
      grad.gather(csr, args.grad, slot, stop, 0);
    };
    const auto for_chunks = [&](const auto& body) {
      for (int64_t slot = begin; slot < end; slot += out.capacity())
        body(slot, end - slot > out.capacity() ? slot + out.capacity() : end);
    };
    prefetch_edges<T>(csr, begin, end, args.heads, args.out, args.grad, args.grad_scores);

    sum.fill(0);
    for_chunks([&](int64_t slot, int64_t stop) {
      gather(slot, stop);
      out.for_vectors(
          stop - slot, none, [&](int64_t v, V& s) { s += out.load(v) * grad.load(v); },
          [&](int64_t part, const V& s) { sum.store(part, sum.load(part) + s); });
    });
    out.fold(sum.data(), [](C a, C b) { return a + b; });

    for_chunks([&](int64_t slot, int64_t stop) {
      if (!fits) gather(slot, stop);
      out.for_vectors(
          stop - slot, [&](int64_t part) { return sum.load(part); },
          [&](int64_t v, const V& s) { out.store(v, out.load(v) * (grad.load(v) - s)); }, [](int64_t, const V&) {});
      out.scatter(csr, args.grad_scores, slot, stop);
    });
  }
}

// The numbers of heads that attention layers have are compiled in, so that an edge's scores move in one access.
template <typename Args, typename Body>
void with_heads(const Args& args, const Body& body) {
  switch (args.heads) {
    case 1:
      return body(std::integral_constant<int, 1>{});
    case 2:
      return body(std::integral_constant<int, 2>{});
    case 4:
      return body(std::integral_constant<int, 4>{});
    case 8:
      return body(std::integral_constant<int, 8>{});
    default:
      return body(std::integral_constant<int, 0>{});
  }
}

template <typename T>
void segment_softmax(const SegmentSoftmaxArgs<T>& args, int64_t row_begin, int64_t row_end) {
  with_heads(args, [&](auto heads) { softmax_rows<T, heads.value>(args, row_begin, row_end); });
}

template <typename T>
void segment_softmax_backward(const SegmentSoftmaxBackwardArgs<T>& args, int64_t row_begin, int64_t row_end) {
  with_heads(args, [&](auto heads) { softmax_backward_rows<T, heads.value>(args, row_begin, row_end); });
}
