// Loops of stem_loops.h, for the instructions of the region that includes this (vector.h).

constexpr std::int64_t kTogether = kLanes == 16 ? 28 : 6;  // pixels, or weights, whose sums are in registers

template <int n>
inline void convolve_pixels(const float* x, const Windows& w, const float* weight, const float* bias, Slope slope, float* y, std::int64_t step) {
  Vector sums[n][kVectors];
#pragma GCC unroll 28
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[i][v] = Vector::zero();
  }
  for (std::int64_t r = 0; r < w.rows; ++r, x += w.row) {
#pragma GCC unroll 4
    for (std::int64_t k = 0; k < w.length; ++k, weight += kPanel) {
      Vector row[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) row[v] = Vector::load(weight + v * kLanes);
#pragma GCC unroll 28
      for (int i = 0; i < n; ++i) {
        const Vector value = Vector::all(x[i * w.apart + k]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sums[i][v] = add(value, row[v], sums[i][v]);
      }
    }
  }
  if (bias != nullptr) {
    const Vector factor = Vector::all(slope);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const Vector shift = Vector::load(bias + v * kLanes);
#pragma GCC unroll 28
      for (int i = 0; i < n; ++i) sums[i][v] = act(sums[i][v] + shift, factor);
    }
  }
#pragma GCC unroll 28
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[i][v].store(y + i * step + v * kLanes);
  }
}

template <int n>
inline void convolve_some(std::int64_t pixels, const float* x, const Windows& w, const float* weight, const float* bias, Slope slope, float* y,
                          std::int64_t step) {
  if constexpr (n > 1) {
    if (pixels < n) return convolve_some<n - 1>(pixels, x, w, weight, bias, slope, y, step);
  }
  convolve_pixels<n>(x, w, weight, bias, slope, y, step);
}

// Calls f(first, next) for stretches of at most kTogether, as even as they can be: a short one has too few sums to keep the units busy.
template <typename F>
inline void evenly(std::int64_t count, const F& f) {
  const std::int64_t pieces = (count + kTogether - 1) / kTogether;
  for (std::int64_t i = 0; i < pieces; ++i) f(count * i / pieces, count * (i + 1) / pieces);
}

void convolve(const Windows& w, const float* weight, const float* bias, Slope slope, std::int64_t pixels, float* y, std::int64_t step) {
  evenly(pixels, [&](std::int64_t first, std::int64_t next) {
    convolve_some<kTogether>(next - first, w.first + first * w.apart, w, weight, bias, slope, y + first * step, step);
  });
}

template <int n>
inline void add_products(const float* x, std::int64_t apart, const float* dy, std::int64_t pixels, float* sums) {
  Vector sum[n][kVectors];
#pragma GCC unroll 28
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[i][v] = Vector::zero();
  }
#pragma GCC unroll 2
  for (std::int64_t p = 0; p < pixels; ++p, x += apart, dy += kPanel) {
    Vector row[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) row[v] = Vector::load(dy + v * kLanes);
#pragma GCC unroll 28
    for (int i = 0; i < n; ++i) {
      const Vector value = Vector::all(x[i]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sum[i][v] = add(value, row[v], sum[i][v]);
    }
  }
#pragma GCC unroll 28
  for (int i = 0; i < n; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      float* to = sums + i * kPanel + v * kLanes;
      (Vector::load(to) + sum[i][v]).store(to);
    }
  }
}

template <int n>
inline void add_some(std::int64_t weights, const float* x, std::int64_t apart, const float* dy, std::int64_t pixels, float* sums) {
  if constexpr (n > 1) {
    if (weights < n) return add_some<n - 1>(weights, x, apart, dy, pixels, sums);
  }
  add_products<n>(x, apart, dy, pixels, sums);
}

void gradient(const Windows& w, const float* dy, std::int64_t pixels, float* sums) {
  for (std::int64_t r = 0; r < w.rows; ++r, sums += w.length * kPanel) {
    evenly(w.length, [&](std::int64_t first, std::int64_t next) {
      add_some<kTogether>(next - first, w.first + r * w.row + first, w.apart, dy, pixels, sums + first * kPanel);
    });
  }
}

constexpr StemLoops kLoops{convolve, gradient};
