// Max and min with the edge that won, for callers that differentiate by scattering to the winner. A row starts at -inf
// (+inf for min) and only a strictly better message wins, so NaN never does, and of equals the first edge of the row.

template <typename T, bool kMax>
void extremum_with_arg(const SpmmArgs<T>& args, int32_t* arg, int64_t begin_place, int64_t end_place) {
  using S = Simd<T>;
  const CsrView& csr = args.csr;
  const int64_t width = args.heads * args.head_dim;
  const Compute<T> start = kMax ? -__builtin_inf() : __builtin_inf();
  std::vector<Compute<T>> best(static_cast<size_t>(width));
  for (int64_t place = begin_place; place < end_place; ++place) {
    const int64_t row = row_at(csr, place);
    int32_t* winner = arg + row * width;
    for (int64_t c = 0; c < width; ++c) {
      best[c] = start;
      winner[c] = -1;
    }
    for (int64_t slot = csr.rowptr[place]; slot < csr.rowptr[place + 1]; ++slot) {
      const T* x = args.x + csr.col[slot] * args.x_stride;
      const T* weight = args.weight + (args.weight_index ? args.weight_index[slot] : slot) * args.heads;
      const int32_t edge = csr.perm ? csr.perm[slot] : static_cast<int32_t>(slot);
      for (int64_t h = 0; h < args.heads; ++h) {
        const Compute<T> w = args.weight ? S::scalar(weight[h]) : Compute<T>(1);
        for (int64_t c = h * args.head_dim; c < (h + 1) * args.head_dim; ++c) {
          const Compute<T> message = w * S::scalar(x[c]);
          const bool wins = kMax ? message > best[c] : message < best[c];
          best[c] = wins ? message : best[c];
          winner[c] = wins ? edge : winner[c];
        }
      }
    }
    for (int64_t c = 0; c < width; ++c) S::put(args.out[row * width + c], best[c]);
  }
}

template <typename T>
void spmm_arg(const SpmmArgs<T>& args, int32_t* arg, int64_t begin_place, int64_t end_place) {
  if (args.reduce == Reduce::Max) {
    extremum_with_arg<T, true>(args, arg, begin_place, end_place);
  } else {
    extremum_with_arg<T, false>(args, arg, begin_place, end_place);
  }
}
