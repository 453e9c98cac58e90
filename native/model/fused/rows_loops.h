// The loops of rows.h, compiled once for each set of instructions: included by rows.cpp within a namespace of its own, so without a guard.

inline float get(const float* p) { return *p; }
inline float get(const bf16* p) { return std::bit_cast<float>(static_cast<std::uint32_t>(p->bits) << 16); }

inline void put(float value, float* p) { *p = value; }
// To the nearest, ties to even. A NaN of only low bits would become an infinity; arithmetic makes none such.
inline void put(float value, bf16* p) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  p->bits = static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Four rows a sweep: the sums are read and written a quarter as often.
template <typename T>
void moments(const T* x, std::int64_t rows, std::int64_t channels, const float* __restrict centre, float* __restrict sum,
             float* __restrict squares) {
  std::int64_t row = 0;
  for (; row + 4 <= rows; row += 4, x += 4 * channels) {
    const T *x1 = x + channels, *x2 = x1 + channels, *x3 = x2 + channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      const float k = centre[c];
      const float a = get(x + c) - k, b = get(x1 + c) - k, d = get(x2 + c) - k, e = get(x3 + c) - k;
      sum[c] += (a + b) + (d + e);
      squares[c] += (a * a + b * b) + (d * d + e * e);
    }
  }
  for (; row < rows; ++row, x += channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float a = get(x + c) - centre[c];
      sum[c] += a;
      squares[c] += a * a;
    }
  }
}

template <typename T>
void apply(const T* x, const T* residual, std::int64_t rows, std::int64_t channels, const float* __restrict scale,
           const float* __restrict shift, float slope, T* y) {
  for (std::int64_t row = 0; row < rows; ++row, x += channels, y += channels) {
    if (residual == nullptr) {
#pragma GCC ivdep
      for (std::int64_t c = 0; c < channels; ++c) {
        const float v = get(x + c) * scale[c] + shift[c];
        put(v > 0 ? v : v * slope, y + c);
      }
    } else {
#pragma GCC ivdep
      for (std::int64_t c = 0; c < channels; ++c) {
        const float v = get(x + c) * scale[c] + shift[c] + get(residual + c);
        put(v > 0 ? v : v * slope, y + c);
      }
      residual += channels;
    }
  }
}

template <typename T>
void gradient_moments(const T* __restrict dy, const T* __restrict x, std::int64_t rows, std::int64_t channels, const float* __restrict centre,
                      const float* __restrict scale, const float* __restrict shift, float slope, float* __restrict sum, float* __restrict products) {
  std::int64_t row = 0;
  for (; row + 2 <= rows; row += 2, dy += 2 * channels, x += 2 * channels) {
    const T *dy1 = dy + channels, *x1 = x + channels;
    for (std::int64_t c = 0; c < channels; ++c) {
      const float first = get(x + c), second = get(x1 + c);
      const float g = get(dy + c) * (first * scale[c] + shift[c] > 0 ? 1.0f : slope), g1 = get(dy1 + c) * (second * scale[c] + shift[c] > 0 ? 1.0f : slope);
      sum[c] += g + g1;
      products[c] += g * (first - centre[c]) + g1 * (second - centre[c]);
    }
  }
  for (; row < rows; ++row, dy += channels, x += channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float only = get(x + c), g = get(dy + c) * (only * scale[c] + shift[c] > 0 ? 1.0f : slope);
      sum[c] += g;
      products[c] += g * (only - centre[c]);
    }
  }
}

template <typename T>
void gradient(const T* dy, const T* x, std::int64_t rows, std::int64_t channels, const float* __restrict scale, const float* __restrict shift, float slope,
              const float* __restrict a, const float* __restrict b, const float* __restrict c0, T* dx) {
  for (std::int64_t row = 0; row < rows; ++row, dy += channels, x += channels, dx += channels) {
#pragma GCC ivdep
    for (std::int64_t c = 0; c < channels; ++c) {
      const float v = get(x + c), g = get(dy + c) * (v * scale[c] + shift[c] > 0 ? 1.0f : slope);
      put(g * a[c] + v * b[c] + c0[c], dx + c);
    }
  }
}

template <bool twice, typename T>
void added_gradient_moments_of(const T* dy, const T* again, const T* y, const T* x, std::int64_t rows, std::int64_t channels,
                               const float* __restrict centre, float slope, T* __restrict g, float* __restrict sum, float* __restrict products) {
  const auto term = [&](std::int64_t i) {
    const float value = (twice ? get(dy + i) + get(again + i) : get(dy + i)) * (get(y + i) > 0 ? 1.0f : slope);
    put(value, g + i);
    return value;
  };
  std::int64_t row = 0, i = 0;
  for (; row + 2 <= rows; row += 2, i += 2 * channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float first = term(i + c), second = term(i + channels + c);
      sum[c] += first + second;
      products[c] += first * (get(x + i + c) - centre[c]) + second * (get(x + i + channels + c) - centre[c]);
    }
  }
  for (; row < rows; ++row, i += channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float only = term(i + c);
      sum[c] += only;
      products[c] += only * (get(x + i + c) - centre[c]);
    }
  }
}

template <typename T>
void added_gradient_moments(const T* dy, const T* again, const T* y, const T* x, std::int64_t rows, std::int64_t channels, const float* centre,
                            float slope, T* g, float* sum, float* products) {
  (again != nullptr ? added_gradient_moments_of<true, T> : added_gradient_moments_of<false, T>)(dy, again, y, x, rows, channels, centre, slope, g, sum,
                                                                                                products);
}

template <typename T>
void added_gradient(const T* g, const T* x, std::int64_t rows, std::int64_t channels, const float* __restrict a, const float* __restrict b,
                    const float* __restrict c0, T* dx) {
  for (std::int64_t row = 0; row < rows; ++row, g += channels, x += channels, dx += channels) {
#pragma GCC ivdep
    for (std::int64_t c = 0; c < channels; ++c) put(get(g + c) * a[c] + get(x + c) * b[c] + c0[c], dx + c);
  }
}

template <typename T>
constexpr RowKernels<T> kernels() {
  return {moments<T>, apply<T>, gradient_moments<T>, gradient<T>, added_gradient_moments<T>, added_gradient<T>};
}
