// Dot products of the two ends of every edge, included by row_kernels.inl. A row of b stays in the L1 cache while the
// rows of a at the other ends of its edges are read. They are prefetched as in spmm_tile.

template <typename T>
inline Compute<T> dot(const T* a, const T* b, int64_t n) {
  using S = Simd<T>;
  typename S::Vector acc[2] = {};
  int64_t i = 0;
  for (; i + 2 * S::kWidth <= n; i += 2 * S::kWidth) {
    acc[0] += S::load(a + i) * S::load(b + i);
    acc[1] += S::load(a + i + S::kWidth) * S::load(b + i + S::kWidth);
  }
  for (; i + S::kWidth <= n; i += S::kWidth) acc[0] += S::load(a + i) * S::load(b + i);
  if (i < n) acc[1] += S::load_tail(a + i, static_cast<int>(n - i)) * S::load_tail(b + i, static_cast<int>(n - i));
  return S::sum(acc[0] + acc[1]);
}

// Products of n heads of one element each, which need no sum.
template <typename T>
void products(const T* a, const T* b, T* out, int64_t n) {
  using S = Simd<T>;
  int64_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth) S::store(out + i, S::load(a + i) * S::load(b + i));
  for (; i < n; ++i) S::put(out[i], S::scalar(a[i]) * S::scalar(b[i]));
}

// Dot product of a head that is too narrow for vectors to pay.
template <typename T>
Compute<T> short_dot(const T* a, const T* b, int64_t n) {
  Compute<T> sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += Simd<T>::scalar(a[i]) * Simd<T>::scalar(b[i]);
  return sum;
}

// Rows of one head and exactly kVectors vectors. The row of b stays in registers, and the column loops are unrolled.
template <typename T, int kVectors>
void sddmm_whole(const SddmmArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  constexpr int64_t kColumns = kVectors * S::kWidth;
  const CsrView& csr = args.csr;
  const int64_t last = csr.edges - 1, ahead = edges_ahead<T>(csr.cols, kColumns);
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(csr, place);
    typename S::Vector b[kVectors];
    for (int v = 0; v < kVectors; ++v) b[v] = S::load(args.b + row * kColumns + v * S::kWidth);
    for (int64_t slot = csr.rowptr[place]; slot < csr.rowptr[place + 1]; ++slot) {
      prefetch_row(args.a + csr.col[slot + ahead < last ? slot + ahead : last] * kColumns, kColumns);
      const T* a = args.a + csr.col[slot] * kColumns;
      typename S::Vector total = S::load(a) * b[0];
      for (int v = 1; v < kVectors; ++v) total += S::load(a + v * S::kWidth) * b[v];
      Simd<T>::put(args.out[csr.perm ? csr.perm[slot] : slot], S::sum(total));
    }
  }
}

template <typename T>
void sddmm(const SddmmArgs<T>& args, int64_t begin_place, int64_t end_place) {
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
  if (args.heads == 1) {
    constexpr int kWidth = Simd<T>::kWidth;
    if (width == kWidth) return sddmm_whole<T, 1>(args, begin_place, end_place);
    if (width == 2 * kWidth) return sddmm_whole<T, 2>(args, begin_place, end_place);
    if (width == 4 * kWidth) return sddmm_whole<T, 4>(args, begin_place, end_place);
    if (width == 8 * kWidth) return sddmm_whole<T, 8>(args, begin_place, end_place);
  }
  const int64_t last = csr.edges - 1, ahead = edges_ahead<T>(csr.cols, width);
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(csr, place);
    const T* b = args.b + row * width;
    for (int64_t slot = csr.rowptr[place]; slot < csr.rowptr[place + 1]; ++slot) {
      prefetch_row(args.a + csr.col[slot + ahead < last ? slot + ahead : last] * width, width);
      const T* a = args.a + csr.col[slot] * width;
      T* out = args.out + (csr.perm ? csr.perm[slot] : slot) * args.heads;
      if (args.head_dim == 1) {
        products(a, b, out, args.heads);
        continue;
      }
      for (int64_t h = 0; h < args.heads; ++h) {
        const T *a_head = a + h * args.head_dim, *b_head = b + h * args.head_dim;
        Simd<T>::put(out[h], 2 * args.head_dim < Simd<T>::kWidth ? short_dot(a_head, b_head, args.head_dim)
                                                                 : dot(a_head, b_head, args.head_dim));
      }
    }
  }
}
