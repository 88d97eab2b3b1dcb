// Gradients of max and min (ExtremumArgs in types.h), included by row_kernels.inl. Columns are processed one vector at
// a time. The data of the current row stay in the L1 cache while the rows of its neighbours are prefetched and read.

// Calls body(first column, number of columns, weight) for each vector of one edge's feature row. The weight is 1 if the
// edges have none.
template <typename T, typename Body>
inline void for_vectors(const ExtremumArgs<T>& args, int64_t edge, const Body& body) {
  constexpr int kWidth = Simd<T>::kWidth;
  for (int64_t h = 0; h < args.heads; ++h) {
    const Compute<T> w = args.weight ? Simd<T>::scalar(args.weight[edge * args.heads + h]) : Compute<T>(1);
    const int64_t end = (h + 1) * args.head_dim;
    for (int64_t c = h * args.head_dim; c < end; c += kWidth)
      body(c, static_cast<int>(end - c < kWidth ? end - c : kWidth), w);
  }
}

// Returns `value` in the lanes whose message w * x equals the row's result, else 0. Messages are rounded to T before
// the comparison, because the result was rounded when it was stored.
template <typename T>
inline typename Simd<T>::Vector where_equal(typename Simd<T>::Vector x, Compute<T> w, typename Simd<T>::Vector out,
                                            typename Simd<T>::Vector value) {
  return Simd<T>::rounded(x * w) == out ? value : typename Simd<T>::Vector{};
}

template <typename T>
void extremum_share(const CsrView& forward, const ExtremumArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  using C = Simd<Compute<T>>;
  using V = typename S::Vector;
  const int64_t width = args.heads * args.head_dim, last = forward.edges - 1;
  const int64_t ahead = edges_ahead<T>(forward.cols, width);
  const V one = S::broadcast(1);
  std::vector<Compute<T>> counts(static_cast<size_t>(width));
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(forward, place);
    const T* out = args.out + row * width;
    for (Compute<T>& count : counts) count = 0;
    for (int64_t slot = forward.rowptr[place]; slot < forward.rowptr[place + 1]; ++slot) {
      prefetch_row(args.x + forward.col[slot + ahead < last ? slot + ahead : last] * width, width);
      const T* x = args.x + forward.col[slot] * width;
      for_vectors(args, forward.perm ? forward.perm[slot] : slot, [&](int64_t c, int n, Compute<T> w) {
        const V shares = where_equal<T>(S::load_some(x + c, n), w, S::load_some(out + c, n), one);
        C::store_some(counts.data() + c, C::load_some(counts.data() + c, n) + shares, n);
      });
    }
    for (int64_t c = 0; c < width; ++c)
      args.share[row * width + c] =
          S::scalar(args.grad[row * width + c]) / (counts[c] + (S::scalar(out[c]) == 0 ? 1 : 0));
  }
}

template <typename T>
void extremum_grad_x(const CsrView& transposed, const ExtremumArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  using C = Simd<Compute<T>>;
  const int64_t width = args.heads * args.head_dim, last = transposed.edges - 1;
  const int64_t ahead = edges_ahead<T>(transposed.cols, width);
  std::vector<Compute<T>> total(static_cast<size_t>(width));
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(transposed, place);
    const T* x = args.x + row * width;
    for (Compute<T>& t : total) t = 0;
    for (int64_t slot = transposed.rowptr[place]; slot < transposed.rowptr[place + 1]; ++slot) {
      const int64_t next = transposed.col[slot + ahead < last ? slot + ahead : last];
      prefetch_row(args.out + next * width, width);
      prefetch_row(args.share + next * width, width);
      const int64_t destination = transposed.col[slot] * width;
      const T* out = args.out + destination;
      const Compute<T>* share = args.share + destination;
      for_vectors(args, transposed.perm ? transposed.perm[slot] : slot, [&](int64_t c, int n, Compute<T> w) {
        const auto part = C::load_some(share + c, n) * w;
        const auto won = where_equal<T>(S::load_some(x + c, n), w, S::load_some(out + c, n), part);
        C::store_some(total.data() + c, C::load_some(total.data() + c, n) + won, n);
      });
    }
    for (int64_t c = 0; c < width; ++c) S::put(args.grad_x[row * width + c], total[c]);
  }
}

template <typename T>
void extremum_grad_weight(const CsrView& forward, const ExtremumArgs<T>& args, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  using C = Simd<Compute<T>>;
  constexpr int kWidth = S::kWidth;
  const int64_t width = args.heads * args.head_dim, last = forward.edges - 1;
  const int64_t ahead = edges_ahead<T>(forward.cols, width);
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(forward, place);
    const Compute<T>* share = args.share + row * width;
    const T* out = args.out + row * width;
    for (int64_t slot = forward.rowptr[place]; slot < forward.rowptr[place + 1]; ++slot) {
      prefetch_row(args.x + forward.col[slot + ahead < last ? slot + ahead : last] * width, width);
      const int64_t edge = forward.perm ? forward.perm[slot] : slot;
      const T* x = args.x + forward.col[slot] * width;
      for (int64_t h = 0; h < args.heads; ++h) {
        const Compute<T> w = S::scalar(args.weight[edge * args.heads + h]);
        typename S::Vector total{};
        for (int64_t c = h * args.head_dim, end = c + args.head_dim; c < end; c += kWidth) {
          const int n = static_cast<int>(end - c < kWidth ? end - c : kWidth);
          const auto values = S::load_some(x + c, n);
          total += where_equal<T>(values, w, S::load_some(out + c, n), C::load_some(share + c, n) * values);
        }
        S::put(args.grad_weight[edge * args.heads + h], S::sum(total));
      }
    }
  }
}
