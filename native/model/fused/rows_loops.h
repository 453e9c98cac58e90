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
void gradient_moments(const T* dy, const T* y, const T* x, std::int64_t rows, std::int64_t channels, const float* __restrict centre,
                      float slope, float* __restrict sum, float* __restrict products) {
  const auto term = [&](std::int64_t i) { return get(dy + i) * (get(y + i) > 0 ? 1.0f : slope); };
  std::int64_t row = 0;
  for (; row + 2 <= rows; row += 2, dy += 2 * channels, y += 2 * channels, x += 2 * channels) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float g = term(c), h = term(channels + c);
      sum[c] += g + h;
      products[c] += g * (get(x + c) - centre[c]) + h * (get(x + channels + c) - centre[c]);
    }
  }
  for (; row < rows; ++row) {
    for (std::int64_t c = 0; c < channels; ++c) {
      const float g = term(c);
      sum[c] += g;
      products[c] += g * (get(x + c) - centre[c]);
    }
  }
}

template <typename T>
void gradient(const T* dy, const T* y, const T* x, std::int64_t rows, std::int64_t channels, const float* __restrict a,
              const float* __restrict b, const float* __restrict c0, float slope, T* __restrict dx, T* __restrict residual) {
  for (std::int64_t row = 0; row < rows; ++row, dy += channels, y += channels, x += channels, dx += channels) {
    if (residual == nullptr) {
      for (std::int64_t c = 0; c < channels; ++c) {
        const float g = get(dy + c) * (get(y + c) > 0 ? 1.0f : slope);
        put(g * a[c] + get(x + c) * b[c] + c0[c], dx + c);
      }
    } else {
      for (std::int64_t c = 0; c < channels; ++c) {
        const float g = get(dy + c) * (get(y + c) > 0 ? 1.0f : slope);
        put(g, residual + c);
        put(g * a[c] + get(x + c) * b[c] + c0[c], dx + c);
      }
      residual += channels;
    }
  }
}

template <typename T>
constexpr RowKernels<T> kernels() {
  return {moments<T>, apply<T>, gradient_moments<T>, gradient<T>};
}
