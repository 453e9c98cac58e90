// The loops of rows.h, compiled once for each set of instructions: included by rows.cpp within a namespace of its own, so without a guard.

inline float get(const float* p) { return *p; }
inline float get(const bf16* p) { return std::bit_cast<float>(static_cast<std::uint32_t>(p->bits) << 16); }

inline void put(float value, float* p) { *p = value; }
// To the nearest, ties to even. A NaN of only low bits would become an infinity; arithmetic makes none such.
inline void put(float value, bf16* p) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  p->bits = static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// How sums over pixels read them. Rows of few channels one by one, a few values at a time, with those of a later row asked for: the memory gives most to who
// reads straight on, and foresees little of what ends after 2 KB. Of many channels some rows at once, as then the sums are read and written less often,
// and too large for the first cache; of very few as well, as their sums are wanted again too soon.
constexpr std::int64_t kNarrow = 512;   // channels, at most, of rows that are read one by one
constexpr std::int64_t kShort = 512;    // bytes, at least, of such rows
constexpr std::int64_t kSoon = 512;     // values between what is read and what is asked for, at least
constexpr std::int64_t kTogether = 32;  // values at a time
constexpr std::int64_t kLine = 64;      // bytes of a cache line

// Calls f(first value, first channel, how many, values to what is to be asked for: 0 if nothing is) for n rows at once.
template <int n, bool asks, typename F>
inline void over_some(std::int64_t rows, std::int64_t channels, const F& f) {
  const std::int64_t later = asks ? (kSoon + channels - 1) / channels * channels : 0;
  for (std::int64_t row = 0, at = 0; row < rows; row += n, at += n * channels) {
    std::int64_t c = 0;
    for (; c + kTogether <= channels; c += kTogether) f(at + c, c, std::integral_constant<std::int64_t, kTogether>(), later, std::integral_constant<int, n>());
    if (c < channels) f(at + c, c, channels - c, 0, std::integral_constant<int, n>());
  }
}

template <int n, typename T, typename F>
inline void over_rows(std::int64_t rows, std::int64_t channels, const F& f) {
  const bool is_short = channels * std::int64_t{sizeof(T)} < kShort;
  if (!is_short && channels <= kNarrow) return over_some<1, true>(rows, channels, f);
  const std::int64_t most = rows / n * n;
  if (is_short) {
    for (std::int64_t at = 0; at < most * channels; at += n * channels) f(at, 0, channels, 0, std::integral_constant<int, n>());
  } else {
    over_some<n, false>(most, channels, f);
  }
  over_some<1, false>(rows - most, channels, [&](std::int64_t at, auto... rest) { f(at + most * channels, rest...); });
}

template <typename T, typename... More>
inline void ask_at(std::int64_t at, const T* x, const More*... more) {
  for (std::int64_t i = 0; i < kTogether; i += kLine / std::int64_t{sizeof(T)}) ask_for<1>(x + at + i);
  if constexpr (sizeof...(more) > 0) ask_at(at, more...);
}

template <int n, typename T>
inline void add_moments(const T* x, std::int64_t channels, std::int64_t count, const float* __restrict centre, float* __restrict sum,
                        float* __restrict squares) {
  for (std::int64_t c = 0; c < count; ++c) {
    float of_rows = 0, of_squares = 0;
#pragma GCC unroll 4
    for (int r = 0; r < n; ++r) {
      const float a = get(x + r * channels + c) - centre[c];
      of_rows += a;
      of_squares += a * a;
    }
    sum[c] += of_rows;
    squares[c] += of_squares;
  }
}

template <typename T>
void moments(const T* x, std::int64_t rows, std::int64_t channels, const float* centre, float* sum, float* squares) {
  over_rows<4, T>(rows, channels, [&](std::int64_t at, std::int64_t c, auto count, std::int64_t later, auto n) {
    if (later > 0) ask_at(at + later, x);
    add_moments<n>(x + at, channels, count, centre + c, sum + c, squares + c);
  });
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

template <int n, typename T>
inline void add_gradient_moments(const T* dy, const T* x, std::int64_t channels, std::int64_t count, const float* __restrict centre,
                                 const float* __restrict scale, const float* __restrict shift, float slope, float* __restrict sum,
                                 float* __restrict products) {
  for (std::int64_t c = 0; c < count; ++c) {
    float of_rows = 0, of_products = 0;
#pragma GCC unroll 4
    for (int r = 0; r < n; ++r) {
      const float v = get(x + r * channels + c), g = get(dy + r * channels + c) * (v * scale[c] + shift[c] > 0 ? 1.0f : slope);
      of_rows += g;
      of_products += g * (v - centre[c]);
    }
    sum[c] += of_rows;
    products[c] += of_products;
  }
}

template <typename T>
void gradient_moments(const T* dy, const T* x, std::int64_t rows, std::int64_t channels, const float* centre, const float* scale, const float* shift,
                      float slope, float* sum, float* products) {
  over_rows<4, T>(rows, channels, [&](std::int64_t at, std::int64_t c, auto count, std::int64_t later, auto n) {
    if (later > 0) ask_at(at + later, dy, x);
    add_gradient_moments<n>(dy + at, x + at, channels, count, centre + c, scale + c, shift + c, slope, sum + c, products + c);
  });
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

template <int n, bool twice, typename T>
inline void add_added_gradient_moments(const T* dy, const T* again, const T* y, const T* x, std::int64_t channels, std::int64_t count,
                                       const float* __restrict centre, float slope, T* __restrict g, float* __restrict sum, float* __restrict products) {
  for (std::int64_t c = 0; c < count; ++c) {
    float of_rows = 0, of_products = 0;
#pragma GCC unroll 2
    for (int r = 0; r < n; ++r) {
      const std::int64_t i = r * channels + c;
      const float value = (twice ? get(dy + i) + get(again + i) : get(dy + i)) * (get(y + i) > 0 ? 1.0f : slope);
      put(value, g + i);
      of_rows += value;
      of_products += value * (get(x + i) - centre[c]);
    }
    sum[c] += of_rows;
    products[c] += of_products;
  }
}

template <bool twice, typename T>
void added_gradient_moments_of(const T* dy, const T* again, const T* y, const T* x, std::int64_t rows, std::int64_t channels, const float* centre,
                               float slope, T* g, float* sum, float* products) {
  over_rows<2, T>(rows, channels, [&](std::int64_t at, std::int64_t c, auto count, std::int64_t later, auto n) {
    if (later > 0) ask_at(at + later, dy, y, x);
    if (twice && later > 0) ask_at(at + later, again);
    add_added_gradient_moments<n, twice>(dy + at, twice ? again + at : nullptr, y + at, x + at, channels, count, centre + c, slope, g + at, sum + c,
                                         products + c);
  });
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

// Calls f(first channel, how many) for some channels at a time.
template <typename F>
inline void over_channels(std::int64_t channels, const F& f) {
  std::int64_t c = 0;
  for (; c + kTogether <= channels; c += kTogether) f(c, std::integral_constant<std::int64_t, kTogether>());
  if (c < channels) f(c, channels - c);
}

template <bool tells, typename T>
void max_pool_of(const T* const (&x)[3], std::int64_t in, std::int64_t width, std::int64_t channels, T* y, std::uint8_t* which) {
  for (std::int64_t i = 0; i < width; ++i, y += channels, which += tells ? channels : 0) {
    const std::int64_t left = 2 * i - 1;
    over_channels(channels, [&](std::int64_t c, auto count) {
      float most[kTogether];
      std::int32_t at[kTogether];
      bool first = true;
      for (int row = 0; row < 3; ++row) {
        for (int column = 0; column < 3; ++column) {
          if (x[row] == nullptr || left + column < 0 || left + column >= in) continue;
          const T* values = x[row] + (left + column) * channels + c;
          const int number = row * 3 + column;
          if (first) {
            for (std::int64_t k = 0; k < count; ++k) {
              most[k] = get(values + k);
              at[k] = number;
            }
            first = false;
            continue;
          }
          for (std::int64_t k = 0; k < count; ++k) {
            const float v = get(values + k);
            const bool more = (v > most[k]) | (v != v);
            most[k] = more ? v : most[k];
            if (tells) at[k] = more ? number : at[k];
          }
        }
      }
      for (std::int64_t k = 0; k < count; ++k) put(most[k], y + c + k);
      if (tells) {
        for (std::int64_t k = 0; k < count; ++k) which[c + k] = static_cast<std::uint8_t>(at[k]);
      }
    });
  }
}

template <typename T>
void max_pool(const T* const (&x)[3], std::int64_t in, std::int64_t width, std::int64_t channels, T* y, std::uint8_t* which) {
  (which != nullptr ? max_pool_of<true, T> : max_pool_of<false, T>)(x, in, width, channels, y, which);
}

template <typename T>
void max_pool_gradient(const PooledRow<T> (&seen_by)[2], std::int64_t in, std::int64_t width, std::int64_t channels, T* dx) {
  for (std::int64_t i = 0; i < in; ++i, dx += channels) {
    over_channels(channels, [&](std::int64_t c, auto count) {
      float sum[kTogether];
      for (std::int64_t k = 0; k < count; ++k) sum[k] = 0;
      for (const PooledRow<T>& row : seen_by) {
        if (row.dy == nullptr) continue;
        for (std::int64_t o = i / 2; o <= (i + 1) / 2 && o < width; ++o) {
          const T* dy = row.dy + o * channels + c;
          const std::uint8_t* which = row.which + o * channels + c;
          const auto number = static_cast<std::int32_t>(row.row * 3 + i - (2 * o - 1));
          for (std::int64_t k = 0; k < count; ++k) sum[k] += std::int32_t{which[k]} == number ? get(dy + k) : 0.0f;
        }
      }
      for (std::int64_t k = 0; k < count; ++k) put(sum[k], dx + c + k);
    });
  }
}

template <typename T>
constexpr RowKernels<T> kernels() {
  return {moments<T>, apply<T>, gradient_moments<T>, gradient<T>, added_gradient_moments<T>, added_gradient<T>, max_pool<T>, max_pool_gradient<T>};
}
