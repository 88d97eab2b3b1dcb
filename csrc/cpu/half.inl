// Conversions between the 16-bit types and float, included by row_kernels.inl. Single values are converted by bit
// arithmetic, vectors by the processor's conversion instructions if it has them. Both round to nearest even.
// NaN stays NaN.

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float to_float(BFloat16 value) { return bits_to_float(static_cast<uint32_t>(value.bits) << 16); }

inline float to_float(Float16 value) {
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16, rest = value.bits & 0x7fff;
  if (rest >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinity, NaN
  if (rest >= 0x400) return bits_to_float(sign | ((rest << 13) + (112u << 23)));  // exponent biases: 127 - 15 = 112
  const float magnitude = static_cast<float>(rest) * 0x1p-24f;                    // subnormal
  return sign ? -magnitude : magnitude;
}

template <typename T>
inline T from_float(float value) {
  const uint32_t bits = float_to_bits(value), magnitude = bits & 0x7fffffff;
  if constexpr (std::is_same_v<T, BFloat16>) {
    if (magnitude > 0x7f800000) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
    return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
  } else {
    const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
    if (magnitude > 0x7f800000) return {static_cast<uint16_t>(sign | 0x7e00)};
    if (magnitude >= 0x477ff000) return {static_cast<uint16_t>(sign | 0x7c00)};  // from 65520 up: infinity
    if (magnitude >= 0x38800000) {                                               // from 2^-14 up: normal
      const uint32_t rebased = magnitude - (112u << 23);
      return {static_cast<uint16_t>(sign | (rebased + 0xfff + (rebased >> 13 & 1)) >> 13)};
    }
    // Subnormal: adding 0.5 makes the float unit round to a multiple of 2^-24. The lowest bits of the sum are
    // the significand.
    return {static_cast<uint16_t>(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000))};
  }
}

constexpr int kFloats = GNNA_VECTOR_BYTES / 4;
typedef float FloatVector __attribute__((vector_size(GNNA_VECTOR_BYTES)));
typedef uint32_t WordVector __attribute__((vector_size(GNNA_VECTOR_BYTES)));
typedef uint16_t HalfVector __attribute__((vector_size(GNNA_VECTOR_BYTES / 2)));

template <typename T>
inline FloatVector widen(HalfVector half) {
  if constexpr (std::is_same_v<T, BFloat16>) {
#if GNNA_VECTOR_BYTES == 64  // GCC 12 splits __builtin_convertvector into four shuffles
    return (FloatVector)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)half), 16);
#elif GNNA_VECTOR_BYTES == 32
    return (FloatVector)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)half), 16);
#else
    return (FloatVector)(__builtin_convertvector(half, WordVector) << 16);
#endif
  } else {
#if GNNA_VECTOR_BYTES == 64
    return (FloatVector)_mm512_cvtph_ps((__m256i)half);
#elif GNNA_VECTOR_BYTES == 32
    return (FloatVector)_mm256_cvtph_ps((__m128i)half);
#else
    FloatVector v;
    for (int i = 0; i < kFloats; ++i) v[i] = to_float(T{half[i]});
    return v;
#endif
  }
}

template <typename T>
inline FloatVector widen(const T* p) {
  HalfVector half;
  std::memcpy(&half, p, sizeof half);
  return widen<T>(half);
}

// Loads the first n < kFloats elements and sets the others to 0. Reads no memory beyond the n elements.
template <typename T>
inline FloatVector widen_tail(const T* p, int n) {
#if GNNA_VECTOR_BYTES == 64
  return widen<T>((HalfVector)_mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), p));
#elif GNNA_VECTOR_BYTES == 32
  // Pairs of elements by a masked load, and the last of an odd number on its own.
  const __m128i pairs = _mm_cmpgt_epi32(_mm_set1_epi32(n / 2), _mm_setr_epi32(0, 1, 2, 3));
  const __m128i place =
      _mm_cmpeq_epi16(_mm_set1_epi16(static_cast<int16_t>(n - 1)), _mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7));
  const __m128i last = _mm_and_si128(place, _mm_set1_epi16(static_cast<int16_t>(n % 2 ? p[n - 1].bits : 0)));
  return widen<T>((HalfVector)_mm_or_si128(_mm_maskload_epi32(reinterpret_cast<const int*>(p), pairs), last));
#else
  T padded[kFloats] = {};
  std::memcpy(padded, p, n * sizeof(T));
  return widen<T>(padded);
#endif
}

template <typename T>
inline void narrow(FloatVector v, T* p) {
  HalfVector half;
  if constexpr (std::is_same_v<T, BFloat16>) {
    const WordVector bits = (WordVector)v;
    const WordVector even = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    half = __builtin_convertvector((v != v) ? quiet : even, HalfVector);
  } else {
#if GNNA_VECTOR_BYTES == 64
    half = (HalfVector)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif GNNA_VECTOR_BYTES == 32
    half = (HalfVector)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
    for (int i = 0; i < kFloats; ++i) half[i] = from_float<T>(v[i]).bits;
#endif
  }
  std::memcpy(p, &half, sizeof half);
}
