// Softmax over the edges of a row, and its gradient, included by row_kernels.inl. The scores of many rows are gathered
// into a buffer that stays in the L1 cache. The exponentials, which are most of the arithmetic, are computed on whole
// vectors across row ends. Each score is read once and each result written once. Only a row that exceeds the buffer is
// gathered three times: for the maximum, the sum and the result.

constexpr int64_t kBufferedScores = 4096;

// The coefficients of the Taylor series of exp.
template <typename C, int kDegree>
struct TaylorOfExp {
  C at[kDegree + 1] = {};
  constexpr TaylorOfExp() {
    double factorial = 1;
    for (int k = 0; k <= kDegree; factorial *= ++k) at[k] = static_cast<C>(1 / factorial);
  }
};

// Returns exp(x) for x <= 0 or NaN, to about one unit in the last place. Results below the smallest subnormal are 0.
// Writes x as n ln 2 + r with |r| <= ln 2 / 2 and uses the Taylor series for exp(r). 2^n is multiplied in as two
// factors, so that subnormal results are kept.
template <typename C>
inline typename Simd<C>::Vector exp_nonpositive(typename Simd<C>::Vector x) {
  using S = Simd<C>;
  using V = typename S::Vector;
  constexpr bool kFloat = sizeof(C) == 4;
  using Int = std::conditional_t<kFloat, int32_t, int64_t>;
  using Bits = std::conditional_t<kFloat, uint32_t, uint64_t>;
  typedef Int IntVector __attribute__((vector_size(GNNA_VECTOR_BYTES)));
  typedef Bits BitsVector __attribute__((vector_size(GNNA_VECTOR_BYTES)));
  constexpr C kLowest = kFloat ? -150 : -1000;                // exp(kLowest) rounds to 0
  constexpr C kRounder = kFloat ? C(0x1.8p23) : C(0x1.8p52);  // adding it rounds to an integer, in the low bits
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

struct Larger {
  template <typename V>
  static inline V of(V a, V b) {
    return ((b > a) | (b != b)) ? b : a;  // propagates NaN from either side
  }
};

struct Plus {
  template <typename V>
  static inline V of(V a, V b) {
    return a + b;
  }
};

// Layout of the scores of consecutive slots in a buffer: [edges, stride] of Compute<T>. kHeads is the number of heads
// if it is known at compile time, else 0. A known number that does not fill a vector is packed. Otherwise the heads of
// an edge are padded to whole vectors.
template <typename T, int kHeads>
struct ScoreLayout {
  using C = Compute<T>;
  using S = Simd<C>;
  using V = typename S::Vector;
  static constexpr bool kPacked = kHeads > 0 && kHeads < S::kWidth;

  explicit ScoreLayout(int64_t all_heads)
      : heads(kHeads ? kHeads : all_heads),
        stride(kPacked ? kHeads : (heads + S::kWidth - 1) / S::kWidth * S::kWidth) {}

  int64_t heads, stride;

  void gather(const CsrView& csr, const T* from, int64_t begin, int64_t end, C* to) const {
    const int64_t n = kHeads ? kHeads : heads, step = kPacked ? kHeads : stride;
    for (int64_t slot = begin; slot < end; ++slot, to += step) {
      const T* source = from + (csr.perm ? csr.perm[slot] : slot) * n;
      for (int64_t h = 0; h < n; ++h) to[h] = Simd<T>::scalar(source[h]);
    }
  }

  void scatter(const CsrView& csr, const C* from, int64_t begin, int64_t end, T* to) const {
    const int64_t n = kHeads ? kHeads : heads, step = kPacked ? kHeads : stride;
    for (int64_t slot = begin; slot < end; ++slot, from += step) {
      T* target = to + (csr.perm ? csr.perm[slot] : slot) * n;
      for (int64_t h = 0; h < n; ++h) Simd<T>::put(target[h], from[h]);
    }
  }

  // total[h] = Op over total[h] and values[e, h] of all edges e.
  template <typename Op>
  void reduce(const C* values, int64_t edges, C* total) const {
    if constexpr (kPacked) {
      int64_t i = 0;
      const int64_t count = edges * kHeads;
      if (count >= 2 * S::kWidth) {
        V lanes = S::load(values);
        for (i = S::kWidth; i + S::kWidth <= count; i += S::kWidth) lanes = Op::of(lanes, S::load(values + i));
        C each[S::kWidth];
        S::store(each, lanes);
        for (int lane = 0; lane < S::kWidth; ++lane) total[lane % kHeads] = Op::of(total[lane % kHeads], each[lane]);
      }
      for (; i < count; i += kHeads)
        for (int h = 0; h < kHeads; ++h) total[h] = Op::of(total[h], values[i + h]);
    } else {
      for (int64_t c = 0; c < stride; c += S::kWidth) {
        V lanes = S::load(values + c);
        for (int64_t e = 1; e < edges; ++e) lanes = Op::of(lanes, S::load(values + e * stride + c));
        S::store(total + c, Op::of(S::load(total + c), lanes));
      }
    }
  }

  // values[e, h] = body(values[e, h], total[h]).
  template <typename Body>
  void apply(C* values, int64_t edges, const C* total, const Body& body) const {
    if constexpr (kPacked) {
      for (int64_t i = 0; i < edges * kHeads; i += kHeads)
        for (int h = 0; h < kHeads; ++h) values[i + h] = body(values[i + h], total[h]);
    } else {
      for (int64_t i = 0; i < edges * stride; i += stride)
        for (int64_t c = 0; c < stride; c += S::kWidth)
          S::store(values + i + c, body(S::load(values + i + c), S::load(total + c)));
    }
  }
};

// Prefetches per-edge values of the slots kPrefetchEdges ahead. With a perm they are scattered in memory.
template <typename T>
inline void prefetch_edges(const CsrView& csr, int64_t begin, int64_t end, int64_t heads, const T* first,
                           const T* second, T* written) {
  if (!csr.perm) return;  // consecutive values are prefetched by the processor
  for (int64_t slot = begin + kPrefetchEdges; slot < end + kPrefetchEdges && slot < csr.edges; ++slot) {
    const int64_t at = csr.perm[slot] * heads;
    __builtin_prefetch(first + at, 0, 3);
    if (second) __builtin_prefetch(second + at, 0, 3);
    if (written) __builtin_prefetch(written + at, 1, 3);
  }
}

template <typename C>
inline void exponentiate(C* values, int64_t count) {
  for (int64_t i = 0; i < count; i += Simd<C>::kWidth)
    Simd<C>::store(values + i, exp_nonpositive<C>(Simd<C>::load(values + i)));
}

template <typename T, int kHeads>
void softmax_rows(const SegmentSoftmaxArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using C = Compute<T>;
  const CsrView& csr = args.csr;
  const ScoreLayout<T, kHeads> layout(args.heads);
  const int64_t stride = layout.stride, capacity = kBufferedScores > stride ? kBufferedScores / stride : 1;
  std::vector<C> memory(static_cast<size_t>(capacity * stride + Simd<C>::kWidth)), total(static_cast<size_t>(stride));
  C* const buffer = memory.data();
  const auto minus = [&](auto score, auto most) { return score - most; };
  const auto over = [&](auto exponential, auto sum) { return exponential / sum; };
  const auto start_with = [&](C value) {
    for (C& t : total) t = value;
  };

  const auto long_row = [&](int64_t begin, int64_t end) {
    std::vector<C> most(total.size(), -__builtin_inf());
    const auto for_chunks = [&](const auto& body) {
      for (int64_t slot = begin; slot < end; slot += capacity) {
        const int64_t edges = end - slot > capacity ? capacity : end - slot;
        layout.gather(csr, args.scores, slot, slot + edges, buffer);
        body(slot, edges);
      }
    };
    const auto to_exponentials = [&](int64_t edges) {
      layout.apply(buffer, edges, most.data(), minus);
      exponentiate(buffer, edges * stride);
    };
    for_chunks([&](int64_t, int64_t edges) { layout.template reduce<Larger>(buffer, edges, most.data()); });
    start_with(0);
    for_chunks([&](int64_t, int64_t edges) {
      to_exponentials(edges);
      layout.template reduce<Plus>(buffer, edges, total.data());
    });
    for_chunks([&](int64_t slot, int64_t edges) {
      to_exponentials(edges);
      layout.apply(buffer, edges, total.data(), over);
      layout.scatter(csr, buffer, slot, slot + edges, args.out);
    });
  };

  int64_t place = begin_place;
  while (place < end_place) {
    const int64_t first = csr.rowptr[place];
    int64_t last_place = place;
    while (last_place < end_place && csr.rowptr[last_place + 1] - first <= capacity) ++last_place;
    if (last_place == place) {
      long_row(first, csr.rowptr[++place]);
      continue;
    }
    const auto for_rows = [&](const auto& body) {
      for (int64_t r = place; r < last_place; ++r) {
        const int64_t begin = csr.rowptr[r], edges = csr.rowptr[r + 1] - begin;
        if (edges > 0) body(buffer + (begin - first) * stride, begin, edges);
      }
    };
    for_rows([&](C* values, int64_t begin, int64_t edges) {
      prefetch_edges<T>(csr, begin, begin + edges, layout.heads, args.scores, nullptr, nullptr);
      layout.gather(csr, args.scores, begin, begin + edges, values);
      start_with(-__builtin_inf());
      layout.template reduce<Larger>(values, edges, total.data());
      layout.apply(values, edges, total.data(), minus);
    });
    exponentiate(buffer, (csr.rowptr[last_place] - first) * stride);
    for_rows([&](C* values, int64_t begin, int64_t edges) {
      prefetch_edges<T>(csr, begin, begin + edges, layout.heads, args.scores, nullptr, args.out);
      start_with(0);
      layout.template reduce<Plus>(values, edges, total.data());
      layout.apply(values, edges, total.data(), over);
      layout.scatter(csr, values, begin, begin + edges, args.out);
    });
    place = last_place;
  }
}

template <typename T, int kHeads>
void softmax_backward_rows(const SegmentSoftmaxBackwardArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using C = Compute<T>;
  using S = Simd<T>;
  const CsrView& csr = args.csr;
  const int64_t heads = kHeads ? kHeads : args.heads;
  std::vector<C> memory(static_cast<size_t>(2 * heads));
  C *const total = memory.data(), *const chunk = total + heads;
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t begin = csr.rowptr[place], end = csr.rowptr[place + 1];
    prefetch_edges<T>(csr, begin, end, heads, args.out, args.grad, args.grad_scores);
    for (int64_t h = 0; h < heads; ++h) total[h] = 0;
    for (int64_t slot = begin; slot < end;) {
      const int64_t stop = end - slot > kChunkEdges ? slot + kChunkEdges : end;
      for (int64_t h = 0; h < heads; ++h) chunk[h] = 0;
      for (; slot < stop; ++slot) {
        const int64_t at = (csr.perm ? csr.perm[slot] : slot) * heads;
        for (int64_t h = 0; h < heads; ++h) chunk[h] += S::scalar(args.out[at + h]) * S::scalar(args.grad[at + h]);
      }
      for (int64_t h = 0; h < heads; ++h) total[h] += chunk[h];
    }
    for (int64_t slot = begin; slot < end; ++slot) {
      const int64_t at = (csr.perm ? csr.perm[slot] : slot) * heads;
      for (int64_t h = 0; h < heads; ++h)
        S::put(args.grad_scores[at + h], S::scalar(args.out[at + h]) * (S::scalar(args.grad[at + h]) - total[h]));
    }
  }
}

// Passes common numbers of heads to body as compile-time constants, so that the scores of an edge are one access.
// Passes 0 for any other number.
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
void segment_softmax(const SegmentSoftmaxArgs<T>& args, int64_t begin_place, int64_t end_place) {
  with_heads(args, [&](auto heads) { softmax_rows<T, heads.value>(args, begin_place, end_place); });
}

template <typename T>
void segment_softmax_backward(const SegmentSoftmaxBackwardArgs<T>& args, int64_t begin_place, int64_t end_place) {
  with_heads(args, [&](auto heads) { softmax_backward_rows<T, heads.value>(args, begin_place, end_place); });
}
