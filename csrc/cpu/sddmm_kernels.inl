// SDDMM: a dot product of a source and a destination row per edge and head, row by row of the destinations, whose
// features stay in the L1 cache while their neighbours stream past.

template <typename T>
Compute<T> dot(const T* a, const T* b, int64_t n) {
  using S = Simd<T>;
  typename S::Vector acc[2] = {};
  int64_t i = 0;
  for (; i + 2 * S::kWidth <= n; i += 2 * S::kWidth) {
    acc[0] += S::load(a + i) * S::load(b + i);
    acc[1] += S::load(a + i + S::kWidth) * S::load(b + i + S::kWidth);
  }
  for (; i + S::kWidth <= n; i += S::kWidth) acc[0] += S::load(a + i) * S::load(b + i);
  if (i < n) acc[1] += S::load_tail(a + i, static_cast<int>(n - i)) * S::load_tail(b + i, static_cast<int>(n - i));
  const typename S::Vector total = acc[0] + acc[1];
  Compute<T> sum = 0;
  for (int v = 0; v < S::kWidth; ++v) sum += total[v];
  return sum;
}

// One product per edge and feature: heads of one element each leave nothing to sum.
template <typename T>
void products(const T* a, const T* b, T* out, int64_t n) {
  using S = Simd<T>;
  int64_t i = 0;
  for (; i + S::kWidth <= n; i += S::kWidth) S::store(out + i, S::load(a + i) * S::load(b + i));
  for (; i < n; ++i) S::put(out[i], S::scalar(a[i]) * S::scalar(b[i]));
}

// A head too narrow for a vector to pay.
template <typename T>
Compute<T> short_dot(const T* a, const T* b, int64_t n) {
  Compute<T> sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += Simd<T>::scalar(a[i]) * Simd<T>::scalar(b[i]);
  return sum;
}

template <typename T>
void sddmm(const SddmmArgs<T>& args, int64_t begin_place, int64_t end_place) {
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
  for (int64_t place = begin_place; place < end_place; ++place) {
    const T* b = args.b + row_at(csr, place) * width;
    for (int64_t slot = csr.rowptr[place]; slot < csr.rowptr[place + 1]; ++slot) {
      const int64_t ahead = slot + kPrefetchEdges;
      if (ahead < csr.edges)
        for (int64_t c = 0; c < width; c += 64 / sizeof(T))
          __builtin_prefetch(args.a + csr.col[ahead] * width + c, 0, 3);
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
