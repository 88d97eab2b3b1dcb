// Dot products of both ends of every edge, included by row_kernels.inl. A row of b stays in the L1 cache while the rows
// of a that its edges name stream past, prefetched as spmm's neighbours are.

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

// Rows of exactly kVectors vectors and one head: the row of b stays in registers, and no loop runs over the columns.
template <typename T, int kVectors>
void sddmm_whole(const SddmmArgs<T>& args, int64_t row_begin, int64_t row_end) {
  using S = Simd<T>;
  constexpr int64_t kColumns = kVectors * S::kWidth;
  const CsrView& csr = args.csr;
  const int64_t last = csr.edges - 1, ahead = edges_ahead<T>(csr.cols, kColumns);
  for (int64_t row = row_begin; row < row_end; ++row) {
    typename S::Vector b[kVectors];
    for (int v = 0; v < kVectors; ++v) b[v] = S::load(args.b + row * kColumns + v * S::kWidth);
    for (int64_t slot = csr.rowptr[row]; slot < csr.rowptr[row + 1]; ++slot) {
      prefetch_row(args.a + csr.col[slot + ahead < last ? slot + ahead : last] * kColumns, kColumns);
      const T* a = args.a + csr.col[slot] * kColumns;
      typename S::Vector total = S::load(a) * b[0];
      for (int v = 1; v < kVectors; ++v) total += S::load(a + v * S::kWidth) * b[v];
      Simd<T>::put(args.out[csr.perm ? csr.perm[slot] : slot], S::sum(total));
    }
  }
}

template <typename T>
void sddmm(const SddmmArgs<T>& args, int64_t row_begin, int64_t row_end) {
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
  if (args.heads == 1) {
    constexpr int kWidth = Simd<T>::kWidth;
    if (width == kWidth) return sddmm_whole<T, 1>(args, row_begin, row_end);
    if (width == 2 * kWidth) return sddmm_whole<T, 2>(args, row_begin, row_end);
    if (width == 4 * kWidth) return sddmm_whole<T, 4>(args, row_begin, row_end);
    if (width == 8 * kWidth) return sddmm_whole<T, 8>(args, row_begin, row_end);
  }
  const int64_t last = csr.edges - 1, ahead = edges_ahead<T>(csr.cols, width);
  for (int64_t row = row_begin; row < row_end; ++row) {
    const T* b = args.b + row * width;
    for (int64_t slot = csr.rowptr[row]; slot < csr.rowptr[row + 1]; ++slot) {
      prefetch_row(args.a + csr.col[slot + ahead < last ? slot + ahead : last] * width, width);
      const T* a = args.a + csr.col[slot] * width;
      T* out = args.out + (csr.perm ? csr.perm[slot] : slot) * args.heads;
      for (int64_t h = 0; h < args.heads; ++h)
        Simd<T>::put(out[h], dot(a + h * args.head_dim, b + h * args.head_dim, args.head_dim));
    }
  }
}
