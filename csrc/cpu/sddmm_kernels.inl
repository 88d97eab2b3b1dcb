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

template <typename T>
void sddmm(const SddmmArgs<T>& args, int64_t row_begin, int64_t row_end) {
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
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
