// Row kernels on the CPU. The including file sets the vector width (GNNA_VECTOR_BYTES) and the namespace
// (GNNA_ISA_NAMESPACE). One thread owns a range of rows. The accumulators of a column tile stay in registers while the
// neighbours of a row are read, so each feature row is read once and each result stored once. Feature rows are
// prefetched across row ends, because a gather from a matrix beyond the L2 cache is bound by latency.

namespace gnna::cpu::GNNA_ISA_NAMESPACE {

// The constants below were timed with these loops on one thread of an AMD EPYC (Zen 5, AVX-512), on seven graphs.

// Accumulators per tile: half of the registers. One tile of 256 floats was 1.07 to 1.2 times faster than two of 128.
constexpr int kMaxVectors = GNNA_VECTOR_BYTES == 64 ? 16 : 8;
// Prefetch distance: this many bytes of feature rows, but at most so many edges (1.5 times faster than 16 edges at
// width 16 on com-dblp). A shorter distance is better for matrices of up to kSmallTableBytes, which L2 nearly holds.
constexpr int64_t kPrefetchBytes = 16 << 10, kMostEdgesAhead = 128, kMostEdgesAheadSmall = 32;
constexpr int64_t kSmallTableBytes = 8 << 20;
constexpr int64_t kPrefetchEdges = 16;  // prefetch distance for values of one or a few elements per edge
// A result of kStreamedBytes or more does not stay in the caches until it is read. It is then written by non-temporal
// stores, which do not read the cache lines first. Tiles of less than kStreamedRowBytes per row gained nothing by this.
constexpr int64_t kStreamedBytes = 32 << 20, kStreamedRowBytes = 256;
// A row is summed in chunks of this many edges, and the chunks into the result. The rounding error of a hub's row then
// grows with the size and the number of chunks instead of with its degree.
constexpr int64_t kChunkEdges = 256;

enum class Weight { None, PerHead, PerFeature };

#include "half.inl"

// Vectors of Compute<T> that are loaded from and stored to arrays of T.
template <typename T>
struct Simd {
  using Scalar = Compute<T>;
  static constexpr bool k16Bit = sizeof(T) == 2;
  static constexpr int kWidth = GNNA_VECTOR_BYTES / sizeof(Scalar);
  typedef Scalar Vector __attribute__((vector_size(GNNA_VECTOR_BYTES)));
  typedef Scalar Unaligned __attribute__((vector_size(GNNA_VECTOR_BYTES), aligned(sizeof(Scalar)), may_alias));
  // The element type of a comparison's result.
  using Index = std::conditional_t<sizeof(Scalar) == 4, int32_t, int64_t>;
  typedef Index Indices __attribute__((vector_size(GNNA_VECTOR_BYTES)));
  typedef Index UnalignedIndices __attribute__((vector_size(GNNA_VECTOR_BYTES), aligned(sizeof(Scalar)), may_alias));

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

  // Loads the first n < kWidth elements and sets the others to 0. Reads no memory beyond the n elements.
  static inline Vector load_tail(const T* p, int n) {
    if constexpr (k16Bit) {
      return widen_tail<T>(p, n);
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

  // Non-temporal store if the instruction set has one. p must be aligned to the vector size.
  static inline void stream(T* p, Vector v) {
#if GNNA_VECTOR_BYTES == 64
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif GNNA_VECTOR_BYTES == 32
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#else
    store(p, v);
#endif
  }

  static inline Scalar sum(Vector v) {
#if GNNA_VECTOR_BYTES == 64
    if constexpr (sizeof(Scalar) == 4) {
      return _mm512_reduce_add_ps((__m512)v);
    } else {
      return _mm512_reduce_add_pd((__m512d)v);
    }
#else
    Scalar total = 0;
    for (int i = 0; i < kWidth; ++i) total += v[i];
    return total;
#endif
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

  // Rounds the values to T.
  static inline Vector rounded(Vector v) {
    if constexpr (k16Bit) {
      T stored[kWidth];
      store(stored, v);
      return load(stored);
    } else {
      return v;
    }
  }

  // Load and store n <= kWidth elements.
  static inline Vector load_some(const T* p, int n) { return n == kWidth ? load(p) : load_tail(p, n); }
  static inline void store_some(T* p, Vector v, int n) { n == kWidth ? store(p, v) : store_tail(p, v, n); }

  static inline void put(T& place, Scalar value) {
    if constexpr (k16Bit) {
      place = from_float<T>(value);
    } else {
      place = value;
    }
  }
};

template <typename T, Reduce kReduce>
inline void combine(typename Simd<T>::Vector& acc, typename Simd<T>::Vector message) {
  if constexpr (kReduce == Reduce::Max) {
    acc = ((message > acc) | (message != message)) ? message : acc;  // propagates NaN from either side
  } else if constexpr (kReduce == Reduce::Min) {
    acc = ((message < acc) | (message != message)) ? message : acc;
  } else {
    acc += message;
  }
}

// Returns the row whose list is stored at this place.
inline int64_t row_at(const CsrView& csr, int64_t place) { return csr.order ? csr.order[place] : place; }

// Returns the prefetch distance, in edges, for feature rows of `width` elements in a matrix of `rows` rows.
template <typename T>
inline int64_t edges_ahead(int64_t rows, int64_t width) {
  const int64_t row_bytes = width * static_cast<int64_t>(sizeof(T));
  const int64_t most = rows * row_bytes > kSmallTableBytes ? kMostEdgesAhead : kMostEdgesAheadSmall;
  const int64_t edges = kPrefetchBytes / (row_bytes > 0 ? row_bytes : 1);
  return edges > most ? most : edges < 4 ? 4 : edges;
}

template <typename T>
inline void prefetch_row(const T* row, int64_t width) {
  for (int64_t c = 0; c < width; c += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(row + c, 0, 3);
}

template <typename T>
struct Tile {
  void (*run)(const SpmmArgs<T>&, const Tile&, int64_t begin_place, int64_t end_place);
  int64_t column;  // first column of the tile in the feature row
  int64_t head;    // head whose weight applies
  int tail;        // elements after the last whole vector
};

template <typename T, int kVectors, bool kTail, Weight kWeight, Reduce kReduce>
void spmm_tile(const SpmmArgs<T>& args, const Tile<T>& tile, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  using V = typename S::Vector;
  constexpr int kParts = kVectors + (kTail ? 1 : 0);
  constexpr bool kSum = kReduce == Reduce::Sum || kReduce == Reduce::Mean;
  // Independent accumulators per column. A sum needs only one, because rows are short and the processor overlaps them
  // (several were 1.2 to 1.5 times slower at width 16). A maximum that propagates NaN has a longer latency, so narrow
  // tiles use several.
  constexpr int kChains = kSum ? 1 : kParts == 1 ? 4 : kParts == 2 ? 2 : 1;
  constexpr bool kStreams = !S::k16Bit && kVectors * GNNA_VECTOR_BYTES >= kStreamedRowBytes;
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
  const int64_t weight_stride = kWeight == Weight::PerFeature ? width : args.heads;
  const T* const x = args.x + tile.column;
  const T* const weight = args.weight + (kWeight == Weight::PerFeature ? tile.column : tile.head);
  const V initial = kSum ? V{} : S::broadcast(kReduce == Reduce::Max ? -__builtin_inf() : __builtin_inf());
  const int64_t last = csr.edges - 1, ahead = edges_ahead<T>(csr.cols, width);
  const int32_t* const weight_index = kWeight == Weight::None ? nullptr : args.weight_index;
  const bool streams = kStreams &&
                       (reinterpret_cast<uintptr_t>(args.out + tile.column) | width * sizeof(T)) % 64 == 0 &&
                       csr.rows * width * static_cast<int64_t>(sizeof(T)) >= kStreamedBytes;

  const auto add = [&](V* acc, int64_t slot) __attribute__((always_inline)) {
    const T* source = x + csr.col[slot] * args.x_stride;
    const int64_t edge = weight_index ? weight_index[slot] : slot;
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

  const auto add_prefetching = [&](V* acc, int64_t slot) __attribute__((always_inline)) {
    const int64_t later = slot + ahead < last ? slot + ahead : last;
    const T* next = x + csr.col[later] * args.x_stride;
    for (int line = 0; line * 64 < kParts * S::kWidth * static_cast<int>(sizeof(T)); ++line)
      __builtin_prefetch(next + line * (64 / sizeof(T)), 0, 3);
    if (weight_index) __builtin_prefetch(weight + weight_index[later] * weight_stride, 0, 3);
    add(acc, slot);
  };

  // Reduces one chunk and combines it with `total`, the result of the row's earlier chunks.
  const auto add_chunk = [&](V* total, int64_t slot, int64_t end) __attribute__((always_inline)) {
    V acc[kChains][kParts];
    for (int u = 0; u < kChains; ++u)
      for (int v = 0; v < kParts; ++v) acc[u][v] = initial;
    if constexpr (kChains > 1)
      for (; slot + 2 * kChains <= end; slot += kChains)
        for (int u = 0; u < kChains; ++u) add_prefetching(acc[u], slot + u);
    for (; slot < end; ++slot) add_prefetching(acc[0], slot);
    for (int v = 0; v < kParts; ++v) {
      for (int u = 1; u < kChains; ++u) combine<T, kReduce>(acc[0][v], acc[u][v]);
      combine<T, kReduce>(total[v], acc[0][v]);
    }
  };

  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(csr, place);
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
    T* out = args.out + row * width + tile.column;
    if (kStreams && streams) {
      for (int v = 0; v < kVectors; ++v) S::stream(out + v * S::kWidth, total[v]);
    } else {
      for (int v = 0; v < kVectors; ++v) S::store(out + v * S::kWidth, total[v]);
    }
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
  constexpr int64_t kBatch = 32;                            // tiles per pass over the rows: needs no allocation
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
    // Rows outside, tiles inside, so that all tiles of a row find its neighbours in the L1 cache.
    for (int64_t place = begin_place; place < end_place; ++place)
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
  if (args.reduce == Reduce::Max) {
    spmm_weighted<T, Reduce::Max>(args, begin_place, end_place);
  } else if (args.reduce == Reduce::Min) {
    spmm_weighted<T, Reduce::Min>(args, begin_place, end_place);
  } else {  // a mean is a sum that spmm_tile divides at the row's end
    spmm_weighted<T, Reduce::Sum>(args, begin_place, end_place);
  }
#if GNNA_VECTOR_BYTES >= 32
  _mm_sfence();  // non-temporal stores are not ordered before the signal that this task is done
#endif
}

#include "arg_kernels.inl"
#include "extremum_kernels.inl"
#include "sddmm_kernels.inl"
#include "softmax_kernels.inl"
// Uses exp_nonpositive of the file above.
#include "pair_kernels.inl"

template <typename T>
constexpr KernelTable<T> make_table() {
  return {spmm<T>,
          spmm_arg<T>,
          sddmm<T>,
          extremum_share<T>,
          extremum_grad_x<T>,
          extremum_grad_weight<T>,
          segment_softmax<T>,
          segment_softmax_backward<T>,
          pair_reduce<T>,
          pair_dot<T>,
          pair_map<T>};
}

}  // namespace gnna::cpu::GNNA_ISA_NAMESPACE
