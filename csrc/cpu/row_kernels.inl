// Row kernels on the CPU, as templates over the vector width that the including file sets (GNNA_VECTOR_BYTES) in a
// namespace of its own (GNNA_ISA_NAMESPACE). One thread owns a range of rows. A row is covered by column tiles of up to
// eight vectors that stay in registers while its neighbours stream past, so memory sees each neighbour's feature row
// once, the column id once, and one store of the result. Rows further ahead are prefetched by their column ids, across
// row ends: with a feature matrix beyond the L2 cache the gather is latency, not arithmetic.

namespace gnna::cpu::GNNA_ISA_NAMESPACE {

constexpr int kMaxVectors = 8;  // accumulators per tile: 128 floats with AVX-512, half of the registers
constexpr int64_t kPrefetchEdges = 16;
// A row is summed in chunks of this many edges, and the chunks into the result: the rounding error of a hub's row then
// grows with the chunk and the number of chunks, not with its degree.
constexpr int64_t kChunkEdges = 1024;

enum class Weight { None, PerHead, PerFeature };

#include "half.inl"

// What T is computed with: vectors of Compute<T>, loaded from and stored to T.
template <typename T>
struct Simd {
  using Scalar = Compute<T>;
  static constexpr bool k16Bit = sizeof(T) == 2;
  static constexpr int kWidth = GNNA_VECTOR_BYTES / sizeof(Scalar);
  typedef Scalar Vector __attribute__((vector_size(GNNA_VECTOR_BYTES)));
  typedef Scalar Unaligned __attribute__((vector_size(GNNA_VECTOR_BYTES), aligned(sizeof(Scalar)), may_alias));

  static inline Vector broadcast(Scalar value) { return value - Vector{}; }

  static inline Vector load(const T* p) {
    if constexpr (k16Bit) {
      return widen<T>(p);
    } else {
      return *reinterpret_cast<const Unaligned*>(p);
    }
  }

  static inline void store(T* p, Vector v) {
    if constexpr (k16Bit) {
      narrow(v, p);
    } else {
      *reinterpret_cast<Unaligned*>(p) = v;
    }
  }

  // The first n < kWidth elements; the others are zero and never touch memory.
  static inline Vector load_tail(const T* p, int n) {
    if constexpr (k16Bit) {
      T padded[kWidth] = {};
      std::memcpy(padded, p, n * sizeof(T));
      return widen<T>(padded);
    } else {
#if GNNA_VECTOR_BYTES == 64
      if constexpr (sizeof(T) == 4) {
        return (Vector)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
      } else {
        return (Vector)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
      }
#elif GNNA_VECTOR_BYTES == 32
      alignas(32) static constexpr int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
      if constexpr (sizeof(T) == 4) {
        const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - n));
        return (Vector)_mm256_maskload_ps(p, mask);
      } else {
        const __m256i mask = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - 2 * n));
        return (Vector)_mm256_maskload_pd(p, mask);
      }
#else
      Vector v{};
      for (int i = 0; i < n; ++i) v[i] = p[i];
      return v;
#endif
    }
  }

  static inline void store_tail(T* p, Vector v, int n) {
    T all[kWidth];
    store(all, v);
    std::memcpy(p, all, n * sizeof(T));
  }

  static inline Scalar scalar(T value) {
    if constexpr (k16Bit) {
      return to_float(value);
    } else {
      return value;
    }
  }

  // value as it is once stored in T.
  static inline Scalar rounded(Scalar value) {
    if constexpr (k16Bit) {
      return to_float(from_float<T>(value));
    } else {
      return value;
    }
  }

  static inline void put(T& place, Scalar value) {
    if constexpr (k16Bit) {
      place = from_float<T>(value);
    } else {
      place = value;
    }
  }
};

// The row whose list is stored at this place.
inline int64_t row_at(const CsrView& csr, int64_t place) { return csr.order ? csr.order[place] : place; }

template <typename T, Reduce kReduce>
inline void combine(typename Simd<T>::Vector& acc, typename Simd<T>::Vector message) {
  if constexpr (kReduce == Reduce::Max) {
    acc = ((message > acc) | (message != message)) ? message : acc;  // a NaN on either side stays
  } else if constexpr (kReduce == Reduce::Min) {
    acc = ((message < acc) | (message != message)) ? message : acc;
  } else {
    acc += message;
  }
}

template <typename T>
struct Tile {
  void (*run)(const SpmmArgs<T>&, const Tile&, int64_t begin_place, int64_t end_place);
  int64_t column;  // first column of the tile in the feature row
  int64_t head;    // whose weight applies
  int tail;        // elements after the last whole vector
};

template <typename T, int kVectors, bool kTail, Weight kWeight, Reduce kReduce>
void spmm_tile(const SpmmArgs<T>& args, const Tile<T>& tile, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  using V = typename S::Vector;
  constexpr int kParts = kVectors + (kTail ? 1 : 0);
  // Narrow tiles keep several sums going, or each addition would wait for the one before.
  constexpr int kUnroll = kParts == 1 ? 4 : kParts <= 3 ? 2 : 1;
  constexpr bool kSum = kReduce == Reduce::Sum || kReduce == Reduce::Mean;
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
  const int64_t weight_stride = kWeight == Weight::PerFeature ? width : args.heads;
  const T* const x = args.x + tile.column;
  const T* const weight = args.weight + (kWeight == Weight::PerFeature ? tile.column : tile.head);
  const V initial = kSum ? V{} : S::broadcast(kReduce == Reduce::Max ? -__builtin_inf() : __builtin_inf());
  const int64_t last = csr.edges - 1;

  const auto add = [&](V* acc, int64_t slot) __attribute__((always_inline)) {
    const T* source = x + csr.col[slot] * args.x_stride;
    const int64_t edge = kWeight != Weight::None && args.weight_index ? args.weight_index[slot] : slot;
    const T* w = kWeight == Weight::None ? nullptr : weight + edge * weight_stride;
    for (int v = 0; v < kVectors; ++v) {
      V message = S::load(source + v * S::kWidth);
      if constexpr (kWeight == Weight::PerHead) message = message * S::scalar(*w);
      if constexpr (kWeight == Weight::PerFeature) message = message * S::load(w + v * S::kWidth);
      combine<T, kReduce>(acc[v], message);
    }
    if constexpr (kTail) {
      V message = S::load_tail(source + kVectors * S::kWidth, tile.tail);
      if constexpr (kWeight == Weight::PerHead) message = message * S::scalar(*w);
      if constexpr (kWeight == Weight::PerFeature)
        message = message * S::load_tail(w + kVectors * S::kWidth, tile.tail);
      combine<T, kReduce>(acc[kVectors], message);
    }
  };

  // One chunk, combined with what earlier chunks of the row left in `total`.
  const auto add_chunk = [&](V* total, int64_t slot, int64_t end) __attribute__((always_inline)) {
    V acc[kUnroll][kParts];
    for (int u = 0; u < kUnroll; ++u)
      for (int v = 0; v < kParts; ++v) acc[u][v] = initial;
    for (; slot + kUnroll <= end; slot += kUnroll) {
      for (int u = 0; u < kUnroll; ++u) {
        const int64_t ahead = slot + u + kPrefetchEdges;
        const T* next = x + csr.col[ahead < last ? ahead : last] * args.x_stride;
        for (int line = 0; line * 64 < kParts * GNNA_VECTOR_BYTES; ++line)
          __builtin_prefetch(next + line * (64 / sizeof(T)), 0, 3);
        add(acc[u], slot + u);
      }
    }
    for (; slot < end; ++slot) add(acc[0], slot);
    for (int v = 0; v < kParts; ++v) {
      for (int u = 1; u < kUnroll; ++u) combine<T, kReduce>(acc[0][v], acc[u][v]);
      combine<T, kReduce>(total[v], acc[0][v]);
    }
  };

  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t begin = csr.rowptr[place], end = csr.rowptr[place + 1];
    V total[kParts];
    for (int v = 0; v < kParts; ++v) total[v] = initial;
    for (int64_t slot = begin; slot < end; slot += kChunkEdges)
      add_chunk(total, slot, end - slot > kChunkEdges ? slot + kChunkEdges : end);
    const int64_t degree = end - begin;
    if (!kSum && degree == 0)
      for (int v = 0; v < kParts; ++v) total[v] = V{};
    if (args.reduce == Reduce::Mean && degree > 1)
      for (int v = 0; v < kParts; ++v) total[v] = total[v] / static_cast<typename S::Scalar>(degree);
    T* out = args.out + row_at(csr, place) * width + tile.column;
    for (int v = 0; v < kVectors; ++v) S::store(out + v * S::kWidth, total[v]);
    if constexpr (kTail) S::store_tail(out + kVectors * S::kWidth, total[kVectors], tile.tail);
  }
}

template <typename T, Weight kWeight, Reduce kReduce, int... kCounts>
auto pick_tile(int vectors, bool tail, std::integer_sequence<int, kCounts...>) {
  decltype(Tile<T>::run) chosen = nullptr;
  ((vectors == kCounts + 1 && !tail ? void(chosen = spmm_tile<T, kCounts + 1, false, kWeight, kReduce>) : void()), ...);
  ((vectors == kCounts && tail ? void(chosen = spmm_tile<T, kCounts, true, kWeight, kReduce>) : void()), ...);
  return chosen;
}

template <typename T, Weight kWeight, Reduce kReduce>
void spmm_rows(const SpmmArgs<T>& args, int64_t begin_place, int64_t end_place) {
  constexpr int kWidth = Simd<T>::kWidth;
  const bool by_head = kWeight == Weight::PerHead && args.heads > 1;
  const int64_t spans = by_head ? args.heads : 1;
  const int64_t span = args.heads * args.head_dim / spans;  // columns that share a weight
  constexpr int64_t kBatch = 32;                            // tiles planned at a time, so that no allocation is needed
  Tile<T> tiles[kBatch];
  int64_t head = 0, column = 0;
  while (head < spans) {
    int count = 0;
    while (head < spans && count < kBatch) {
      const int64_t left = span - column;
      const int whole = static_cast<int>(left / kWidth < kMaxVectors ? left / kWidth : kMaxVectors);
      const int tail = whole < kMaxVectors ? static_cast<int>(left % kWidth) : 0;
      tiles[count++] = {pick_tile<T, kWeight, kReduce>(whole, tail > 0, std::make_integer_sequence<int, kMaxVectors>{}),
                        head * span + column, head, tail};
      column += whole * kWidth + tail;
      if (column == span) {
        ++head;
        column = 0;
      }
    }
    if (count == 1) {
      tiles[0].run(args, tiles[0], begin_place, end_place);
      continue;
    }
    for (int64_t place = begin_place; place < end_place; ++place)  // all tiles of a row while its neighbours are in L1
      for (int t = 0; t < count; ++t) tiles[t].run(args, tiles[t], place, place + 1);
  }
}

template <typename T, Reduce kReduce>
void spmm_weighted(const SpmmArgs<T>& args, int64_t begin_place, int64_t end_place) {
  if (args.weight == nullptr) {
    spmm_rows<T, Weight::None, kReduce>(args, begin_place, end_place);
  } else if (args.head_dim == 1 && args.heads > 1) {
    spmm_rows<T, Weight::PerFeature, kReduce>(args, begin_place, end_place);
  } else {
    spmm_rows<T, Weight::PerHead, kReduce>(args, begin_place, end_place);
  }
}

template <typename T>
void spmm(const SpmmArgs<T>& args, int64_t begin_place, int64_t end_place) {
  switch (args.reduce) {
    case Reduce::Max:
      return spmm_weighted<T, Reduce::Max>(args, begin_place, end_place);
    case Reduce::Min:
      return spmm_weighted<T, Reduce::Min>(args, begin_place, end_place);
    default:  // a mean is the sum with a division at the row's end
      return spmm_weighted<T, Reduce::Sum>(args, begin_place, end_place);
  }
}

// One head of one edge in a max / min gradient: calls body(column, weight, 1 if the message shares in it, else 0).
template <typename T, typename Body>
inline void for_shares(const ExtremumArgs<T>& args, int64_t edge, int64_t source, int64_t destination, int64_t head,
                       const Body& body) {
  using S = Simd<T>;
  const int64_t width = args.heads * args.head_dim;
  const T* x = args.x + source * width;
  const T* out = args.out + destination * width;
  const Compute<T> w = args.weight ? S::scalar(args.weight[edge * args.heads + head]) : Compute<T>(1);
  for (int64_t c = head * args.head_dim; c < (head + 1) * args.head_dim; ++c)
    body(c, w, S::rounded(w * S::scalar(x[c])) == S::scalar(out[c]) ? Compute<T>(1) : Compute<T>(0));
}

template <typename T>
void extremum_share(const CsrView& forward, const ExtremumArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  const int64_t width = args.heads * args.head_dim;
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(forward, place);
    Compute<T>* sharers = args.share + row * width;  // counts first, then the quotient
    const T* out = args.out + row * width;
    const T* grad = args.grad + row * width;
    for (int64_t c = 0; c < width; ++c) sharers[c] = S::scalar(out[c]) == 0 ? 1 : 0;
    for (int64_t slot = forward.rowptr[place]; slot < forward.rowptr[place + 1]; ++slot)
      for (int64_t h = 0; h < args.heads; ++h)
        for_shares(args, forward.perm ? forward.perm[slot] : slot, forward.col[slot], row, h,
                   [&](int64_t c, Compute<T>, Compute<T> shares) { sharers[c] += shares; });
    for (int64_t c = 0; c < width; ++c) sharers[c] = S::scalar(grad[c]) / sharers[c];
  }
}

template <typename T>
void extremum_grad_x(const CsrView& transposed, const ExtremumArgs<T>& args, int64_t begin_place, int64_t end_place) {
  const int64_t width = args.heads * args.head_dim;
  std::vector<Compute<T>> total(static_cast<size_t>(width));
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(transposed, place);
    for (Compute<T>& t : total) t = 0;
    for (int64_t slot = transposed.rowptr[place]; slot < transposed.rowptr[place + 1]; ++slot) {
      const Compute<T>* share = args.share + transposed.col[slot] * width;
      for (int64_t h = 0; h < args.heads; ++h)
        for_shares(args, transposed.perm ? transposed.perm[slot] : slot, row, transposed.col[slot], h,
                   [&](int64_t c, Compute<T> w, Compute<T> shares) { total[c] += shares * share[c] * w; });
    }
    for (int64_t c = 0; c < width; ++c) Simd<T>::put(args.grad_x[row * width + c], total[c]);
  }
}

template <typename T>
void extremum_grad_weight(const CsrView& forward, const ExtremumArgs<T>& args, int64_t begin_place, int64_t end_place) {
  const int64_t width = args.heads * args.head_dim;
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(forward, place);
    const Compute<T>* share = args.share + row * width;
    for (int64_t slot = forward.rowptr[place]; slot < forward.rowptr[place + 1]; ++slot) {
      const int64_t edge = forward.perm ? forward.perm[slot] : slot;
      const T* x = args.x + forward.col[slot] * width;
      for (int64_t h = 0; h < args.heads; ++h) {
        Compute<T> total = 0;
        for_shares(args, edge, forward.col[slot], row, h, [&](int64_t c, Compute<T>, Compute<T> shares) {
          total += shares * share[c] * Simd<T>::scalar(x[c]);
        });
        Simd<T>::put(args.grad_weight[edge * args.heads + h], total);
      }
    }
  }
}

#include "arg_kernels.inl"
#include "sddmm_kernels.inl"
#include "softmax_kernels.inl"

template <typename T>
constexpr KernelTable<T> make_table() {
  return {spmm<T>,
          spmm_arg<T>,
          sddmm<T>,
          extremum_share<T>,
          extremum_grad_x<T>,
          extremum_grad_weight<T>,
          segment_softmax<T>,
          segment_softmax_backward<T>};
}

}  // namespace gnna::cpu::GNNA_ISA_NAMESPACE
