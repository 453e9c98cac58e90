// Loops of winograd_loops.h, for the instructions of the region that includes this (vector.h).

// The points 0, a, -a, b, -b and infinity.
constexpr float a = 0.75f, b = 1.5f, aa = a * a, bb = b * b;
constexpr float kInner = 1 / (2 * aa * (aa - bb)), kOuter = 1 / (2 * bb * (bb - aa));  // what G's rows of a and b are divided by

// One dimension of each transform: from n values to n others.
struct OfPatch {
  static constexpr int kFrom = 6, kTo = 6;
  static void apply(const Vector (&d)[6], Vector (&t)[6]) {
    const Vector even_a = add(-bb, d[2], d[4]), odd_a = a * add(-bb, d[1], d[3]), even_b = add(-aa, d[2], d[4]), odd_b = b * add(-aa, d[1], d[3]);
    t[0] = add(aa * bb, d[0], add(-(aa + bb), d[2], d[4]));
    t[1] = even_a + odd_a;
    t[2] = even_a - odd_a;
    t[3] = even_b + odd_b;
    t[4] = even_b - odd_b;
    t[5] = add(aa * bb, d[1], add(-(aa + bb), d[3], d[5]));
  }
};

struct OfOutputs {
  static constexpr int kFrom = 6, kTo = 4;
  static void apply(const Vector (&m)[6], Vector (&y)[4]) {
    const Vector sum_a = m[1] + m[2], less_a = m[1] - m[2], sum_b = m[3] + m[4], less_b = m[3] - m[4];
    y[0] = m[0] + (sum_a + sum_b);
    y[1] = add(a, less_a, b * less_b);
    y[2] = add(aa, sum_a, bb * sum_b);
    y[3] = add(a * aa, less_a, add(b * bb, less_b, m[5]));
  }
};

// Transposed of OfOutputs.
struct OfGradients {
  static constexpr int kFrom = 4, kTo = 6;
  static void apply(const Vector (&y)[4], Vector (&m)[6]) {
    const Vector even_a = add(aa, y[2], y[0]), odd_a = add(a * aa, y[3], a * y[1]), even_b = add(bb, y[2], y[0]), odd_b = add(b * bb, y[3], b * y[1]);
    m[0] = y[0];
    m[1] = even_a + odd_a;
    m[2] = even_a - odd_a;
    m[3] = even_b + odd_b;
    m[4] = even_b - odd_b;
    m[5] = y[3];
  }
};

struct OfWeights {
  static constexpr int kFrom = 3, kTo = 6;
  static void apply(const Vector (&g)[3], Vector (&u)[6]) {
    const Vector even_a = kInner * add(aa, g[2], g[0]), odd_a = (kInner * a) * g[1], even_b = kOuter * add(bb, g[2], g[0]), odd_b = (kOuter * b) * g[1];
    u[0] = (1 / (aa * bb)) * g[0];
    u[1] = even_a + odd_a;
    u[2] = even_a - odd_a;
    u[3] = even_b + odd_b;
    u[4] = even_b - odd_b;
    u[5] = g[2];
  }
};

// Transposed of OfWeights.
struct OfWeightGradients {
  static constexpr int kFrom = 6, kTo = 3;
  static void apply(const Vector (&u)[6], Vector (&g)[3]) {
    const Vector sum_a = kInner * (u[1] + u[2]), less_a = kInner * (u[1] - u[2]), sum_b = kOuter * (u[3] + u[4]), less_b = kOuter * (u[3] - u[4]);
    g[0] = add(1 / (aa * bb), u[0], sum_a + sum_b);
    g[1] = add(a, less_a, b * less_b);
    g[2] = add(aa, sum_a, add(bb, sum_b, u[5]));
  }
};

// Both dimensions: read(row, column) gives kFrom x kFrom values, write(row, column, value) takes kTo x kTo.
template <typename Transform, typename Read, typename Write>
inline void transform(const Read& read, const Write& write) {
  constexpr int from = Transform::kFrom, to = Transform::kTo;
  Vector half[to][from];
#pragma GCC unroll 6
  for (int column = 0; column < from; ++column) {
    Vector in[from], out[to];
#pragma GCC unroll 6
    for (int row = 0; row < from; ++row) in[row] = read(row, column);
    Transform::apply(in, out);
#pragma GCC unroll 6
    for (int row = 0; row < to; ++row) half[row][column] = out[row];
  }
#pragma GCC unroll 6
  for (int row = 0; row < to; ++row) {
    Vector out[to];
    Transform::apply(half[row], out);
#pragma GCC unroll 6
    for (int column = 0; column < to; ++column) write(row, column, out[column]);
  }
}

template <typename Transform>
inline void from_pixels(const float* x, const Pixels& at, float* out, std::int64_t apart) {
  constexpr int n = Transform::kFrom;
  const bool inside = at.top <= 0 && at.left <= 0 && at.bottom >= n && at.right >= n;
  // What the next tile reads besides: pixels of many channels are too far apart for the memory to foresee it.
  for (int row = 0; row < n; ++row) {
    for (int column = 0; column < kTile; ++column) ask_for<1>(x + row * at.row + (n + column) * at.pixel);
  }
  for (int lane = 0; lane < kPanel; lane += kLanes, x += kLanes, out += kLanes) {
    const auto write = [&](int row, int column, Vector v) { v.store(out + (row * kPatch + column) * apart); };
    if (inside) {
      transform<Transform>([&](int row, int column) { return Vector::load(x + row * at.row + column * at.pixel); }, write);
    } else {
      transform<Transform>(
          [&](int row, int column) {
            const bool exists = row >= at.top && row < at.bottom && column >= at.left && column < at.right;
            return exists ? Vector::load(x + row * at.row + column * at.pixel) : Vector::zero();
          },
          write);
    }
  }
}

void patch(const float* x, const Pixels& at, float* out, std::int64_t apart) { from_pixels<OfPatch>(x, at, out, apart); }

void spread(const float* dy, const Pixels& at, float* out, std::int64_t apart) { from_pixels<OfGradients>(dy, at, out, apart); }

void outputs(const float* sums, std::int64_t apart, const float* bias, const float* residual, float slope, float* y, const Pixels& at) {
  const Vector factor = Vector::all(slope);
  for (int lane = 0; lane < kPanel; lane += kLanes) {
    const Vector shift = bias == nullptr ? Vector::zero() : Vector::load(bias + lane);
    transform<OfOutputs>([&](int row, int column) { return Vector::load(sums + lane + (row * kPatch + column) * apart); },
                         [&](int row, int column, Vector v) {
                           if (row >= at.bottom || column >= at.right) return;
                           const std::int64_t to = row * at.row + column * at.pixel + lane;
                           v = v + shift;
                           if (residual != nullptr) v = v + Vector::load(residual + to);
                           act(v, factor).store(y + to);
                         });
  }
}

// Weights lie too far apart for the memory to foresee them: floats, and output channels, that are asked for before they are read.
constexpr std::int64_t kAheadInputs = 32, kAheadOutputs = 4;

// Eight rows of eight values become columns, `column` floats apart.
inline void transpose_block(const float* from, std::int64_t row, float* to, std::int64_t column) {
  __m256 v[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    ask_for<1>(from + i * row + kAheadInputs);
    v[i] = _mm256_loadu_ps(from + i * row);
  }
  transpose(v);
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) _mm256_storeu_ps(to + i * column, v[i]);
}

void weights(const float* w, std::int64_t in, std::int64_t count, float* out, std::int64_t apart) {
  constexpr int kBlock = 8;
  float taps[9][kBlock][kLanes];  // of some input channels, a vector of output channels
  for (std::int64_t i = 0; i < count; i += kBlock) {
    for (int lane = 0; lane < kPanel; lane += kLanes) {
      for (int tap = 0; tap < 9; ++tap) {
        for (int block = 0; block < kLanes; block += kBlock) {
          transpose_block(w + ((lane + block) * 9 + tap) * in + i, 9 * in, taps[tap][0] + block, kLanes);
        }
      }
      for (int j = 0; j < kBlock; ++j) {
        float* to = out + (i + j) * kPanel + lane;
        transform<OfWeights>([&](int row, int column) { return Vector::load(taps[row * 3 + column][j]); },
                             [&](int row, int column, Vector v) { v.store(to + (row * kPatch + column) * apart); });
      }
    }
  }
}

void weights_back(const float* w, std::int64_t in, std::int64_t count, float* u, std::int64_t apart) {
  for (std::int64_t k = 0; k < count; ++k, w += 9 * in, u += kPanel) {
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; ++tap) ask_for<1>(w + (kAheadOutputs * 9 + tap) * in);
    for (int lane = 0; lane < kPanel; lane += kLanes) {
      transform<OfWeights>([&](int row, int column) { return Vector::load(w + (8 - (row * 3 + column)) * in + lane); },
                           [&](int row, int column, Vector v) { v.store(u + (row * kPatch + column) * apart + lane); });
    }
  }
}

void weight_gradient(const float* du, std::int64_t apart, std::int64_t out, std::int64_t in, bool adds, float* dw) {
  for (std::int64_t k = 0; k < out; ++k, du += kPanel, dw += 9 * in) {
    for (int lane = 0; lane < kPanel; lane += kLanes) {
      const auto read = [&](int row, int column) { return Vector::load(du + (row * kPatch + column) * apart + lane); };
      const auto at = [&](int row, int column) { return dw + (row * 3 + column) * in + lane; };
      if (adds) {
        transform<OfWeightGradients>(read, [&](int row, int column, Vector v) { (v + Vector::load(at(row, column))).store(at(row, column)); });
      } else {
        transform<OfWeightGradients>(read, [&](int row, int column, Vector v) { v.store(at(row, column)); });
      }
    }
  }
}

constexpr WinogradLoops kLoops{patch, spread, outputs, weights, weights_back, weight_gradient};
