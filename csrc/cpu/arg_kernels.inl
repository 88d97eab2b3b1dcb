// Max and min with the winning edge of every element (spmm_arg in cpu_api.h), included by row_kernels.inl. A row starts
// at -inf (+inf for min). A message wins if it is better than the best so far. With kLast a message that equals the
// best also wins, so the last of equal edges is selected instead of the first. NaN never wins. The buffers for one
// row's results and winners are small enough for the L1 cache.

template <typename Vector>
inline auto wins_over(const Vector& message, const Vector& before, bool max, bool last) {
  if (max) return last ? message >= before : message > before;
  return last ? message <= before : message < before;
}

template <typename T, bool kMax, bool kLast>
void extremum_with_arg(const SpmmArgs<T>& args, int32_t* arg, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  using C = Simd<Compute<T>>;
  using V = typename S::Vector;
  using Winners = typename S::Indices;
  constexpr int kWidth = S::kWidth;
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim, last = csr.edges - 1;
  const int64_t ahead = edges_ahead<T>(csr.cols, width);
  const V start = S::broadcast(kMax ? -__builtin_inf() : __builtin_inf());
  const int64_t vectors = args.heads * ((args.head_dim + kWidth - 1) / kWidth);
  std::vector<Compute<T>> best(static_cast<size_t>(vectors * kWidth));
  std::vector<typename S::Index> winner(best.size());
  const auto winners = [&](int64_t v) -> typename S::UnalignedIndices& {
    return *reinterpret_cast<typename S::UnalignedIndices*>(winner.data() + v * kWidth);
  };
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(csr, place);
    for (int64_t v = 0; v < vectors; ++v) {
      C::store(best.data() + v * kWidth, start);
      winners(v) = Winners{} - 1;
    }
    for (int64_t slot = csr.rowptr[place]; slot < csr.rowptr[place + 1]; ++slot) {
      prefetch_row(args.x + csr.col[slot + ahead < last ? slot + ahead : last] * args.x_stride, width);
      const T* x = args.x + csr.col[slot] * args.x_stride;
      const T* weight = args.weight + (args.weight_index ? args.weight_index[slot] : slot) * args.heads;
      const Winners edge = Winners{} + (csr.perm ? csr.perm[slot] : static_cast<int32_t>(slot));
      int64_t v = 0;
      for (int64_t h = 0; h < args.heads; ++h) {
        const Compute<T> w = args.weight ? S::scalar(weight[h]) : Compute<T>(1);
        for (int64_t c = h * args.head_dim, end = c + args.head_dim; c < end; c += kWidth, ++v) {
          const V message = S::load_some(x + c, static_cast<int>(end - c < kWidth ? end - c : kWidth)) * w;
          const V before = C::load(best.data() + v * kWidth);
          const Winners wins = wins_over(message, before, kMax, kLast);
          C::store(best.data() + v * kWidth, wins ? message : before);
          winners(v) = wins ? edge : static_cast<Winners>(winners(v));
        }
      }
    }
    int64_t v = 0;
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t c = h * args.head_dim, end = c + args.head_dim; c < end; c += kWidth, ++v) {
        const int n = static_cast<int>(end - c < kWidth ? end - c : kWidth);
        S::store_some(args.out + row * width + c, C::load(best.data() + v * kWidth), n);
        for (int i = 0; i < n; ++i) arg[row * width + c + i] = static_cast<int32_t>(winner[v * kWidth + i]);
      }
    }
  }
}

template <typename T>
void spmm_arg(const SpmmArgs<T>& args, bool last, int32_t* arg, int64_t begin_place, int64_t end_place) {
  const bool max = args.reduce == Reduce::Max;
  const auto kernel = max ? (last ? extremum_with_arg<T, true, true> : extremum_with_arg<T, true, false>)
                          : (last ? extremum_with_arg<T, false, true> : extremum_with_arg<T, false, false>);
  kernel(args, arg, begin_place, end_place);
}
