// Batch norm and what follows it on a GPU. Included where CELLCAM_KERNELS(...) and CELLCAM_KERNEL are defined: as text for the run-time compiler,
// and as C++ by the tests, where threads are the CPU's. T is the type of values; Packed is 8 of them as they lie in memory, Vector as float.
// No preprocessor lines inside.
CELLCAM_KERNELS(

    // use(i, x, sum) for what every thread of column x of a block has found in values[i], summed in a fixed order; each is one thread's.
    // shared: (kCount + 1) of V for each thread. The odd column keeps rows out of each other's banks.
    template <typename V, int kCount, typename F>
    __device__ void column_sums(const V (&values)[kCount], V* shared, const F& use) {
      const int wide = blockDim.x;
      const int row = (kCount + 1) * wide;
      for (int i = 0; i < kCount; ++i) shared[threadIdx.y * row + i * wide + threadIdx.x] = values[i];
      __syncthreads();
      for (int at = threadIdx.y * wide + threadIdx.x; at < kCount * wide; at += wide * blockDim.y) {
        double sum = 0;
        for (int y = 0; y < static_cast<int>(blockDim.y); ++y) sum += shared[y * row + at];
        use(at / wide, at % wide, static_cast<V>(sum));
      }
    }

    // use(offset, read(offset)) for each pixel of this thread, offset being that of 8 values; none where it lies behind the last channel.
    // Reads kAtOnce of them before the first is used, so that as many are on their way.
    template <int kAtOnce, typename Read, typename Use>
    __device__ void each_pixel(const Pixels& size, int channel, const Read& read, const Use& use) {
      if (channel >= size.channels) return;
      const long long last = (blockIdx.z + 1) * size.pixels * size.channels;
      const long long step = static_cast<long long>(size.slices) * blockDim.y * size.channels;
      const long long first = blockIdx.y * blockDim.y + threadIdx.y;
      long long at = (blockIdx.z * size.pixels + first) * size.channels + channel;
      for (; at + (kAtOnce - 1) * step < last; at += kAtOnce * step) {
        decltype(read(at)) items[kAtOnce];
        for (int i = 0; i < kAtOnce; ++i) items[i] = read(at + i * step);
        for (int i = 0; i < kAtOnce; ++i) use(at + i * step, items[i]);
      }
      for (; at < last; at += step) use(at, read(at));
    }

    __device__ int first_channel() { return 8 * (blockIdx.x * blockDim.x + threadIdx.x); }

    // sums: 8 of the first kind, 8 of the second.
    __device__ void write_partial(const Pixels& size, const float (&sums)[16], float* partial, float* shared) {
      float* const out = partial + (blockIdx.z * static_cast<long long>(size.slices) + blockIdx.y) * 2 * size.channels;
      column_sums(sums, shared, [&](int i, int x, float sum) {
        const int channel = 8 * (blockIdx.x * blockDim.x + x) + i % 8;
        if (channel < size.channels) out[i / 8 * size.channels + channel] = sum;
      });
    }

    __device__ Vector factors(const float* all, const Pixels& size, int channel) {
      Vector out;
      for (int i = 0; i < 8; ++i) out.v[i] = channel < size.channels ? all[channel + i] : 0;
      return out;
    }

    __device__ Vector image_factors(const float* all, const Pixels& size, int channel) {
      return factors(all + blockIdx.z * static_cast<long long>(size.channels), size, channel);
    }

    // What is read of Upstream for 8 values.
    struct Passed {
      Packed dy;
      Packed x;
      unsigned positive;
    };

    struct Passing {
      const T* dy;
      const T* x;
      const unsigned char* positive;
      float slope;
      Vector scale = {};
      Vector shift = {};

      __device__ Passing(const Upstream& up, const Pixels& size, int channel)
          : dy(static_cast<const T*>(up.dy)), x(static_cast<const T*>(up.x)), positive(up.positive), slope(up.slope) {
        if (positive != nullptr) return;
        scale = factors(up.scale, size, channel);
        shift = factors(up.shift, size, channel);
      }

      __device__ Passed read(long long at) const {
        Passed out;
        out.dy = fetch(dy + at);
        out.x = fetch(x + at);
        out.positive = positive != nullptr ? positive[at / 8] : 0;
        return out;
      }

      __device__ Vector g(const Passed& p, const Vector& value) const {
        Vector out = unpacked(p.dy);
        if (slope == 1) return out;
        for (int i = 0; i < 8; ++i) {
          const bool passes = positive != nullptr ? (p.positive >> i & 1) != 0 : value.v[i] * scale.v[i] + shift.v[i] > 0;
          out.v[i] = passes ? out.v[i] : slope * out.v[i];
        }
        return out;
      }
    };

    CELLCAM_KERNEL moments(MomentsArguments a) {
      __shared__ float shared[17 * 256];
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(a.x);
      Vector centre = {};
      if (channel < a.size.channels) centre = unpacked(fetch(x + channel));
      float sums[16] = {};
      each_pixel<4>(a.size, channel, [&](long long at) { return fetch(x + at); }, [&](long long, const Packed& packed) {
        const Vector value = unpacked(packed);
        for (int i = 0; i < 8; ++i) {
          const float d = value.v[i] - centre.v[i];
          sums[i] += d;
          sums[8 + i] += d * d;
        }
      });
      write_partial(a.size, sums, a.partial, shared);
    }

    struct WithResidual {
      Packed x;
      Packed residual;
    };

    CELLCAM_KERNEL scale_act(ScaleArguments a) {
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(a.x);
      const T* const residual = static_cast<const T*>(a.residual);
      T* const y = static_cast<T*>(a.y);
      Vector scale = {{1, 1, 1, 1, 1, 1, 1, 1}};
      if (a.scale != nullptr) scale = factors(a.scale, a.size, channel);
      Vector shift = factors(a.shift, a.size, channel);
      if (a.weights != nullptr) {
        const Vector weights = image_factors(a.weights, a.size, channel);
        for (int i = 0; i < 8; ++i) scale.v[i] *= weights.v[i];
        for (int i = 0; i < 8; ++i) shift.v[i] *= weights.v[i];
      }
      const auto read = [&](long long at) {
        WithResidual out;
        out.x = fetch(x + at);
        out.residual = residual != nullptr ? fetch(residual + at) : out.x;
        return out;
      };
      each_pixel<4>(a.size, channel, read, [&](long long at, const WithResidual& item) {
        Vector value = unpacked(item.x);
        const Vector added = unpacked(item.residual);
        unsigned positive = 0;
        for (int i = 0; i < 8; ++i) {
          const float before = value.v[i] * scale.v[i] + shift.v[i] + (residual != nullptr ? added.v[i] : 0);
          positive |= (before > 0 ? 1u : 0u) << i;
          value.v[i] = before > 0 ? before : a.slope * before;
        }
        store(y + at, value);
        if (a.positive != nullptr) a.positive[at / 8] = static_cast<unsigned char>(positive);
      });
    }

    CELLCAM_KERNEL gradient_sums(GradientSumsArguments a) {
      __shared__ float shared[17 * 256];
      const int channel = first_channel();
      const Passing up(a.up, a.size, channel);
      const Vector mean = factors(a.mean, a.size, channel);
      float sums[16] = {};
      each_pixel<4>(a.size, channel, [&](long long at) { return up.read(at); }, [&](long long, const Passed& item) {
        const Vector value = unpacked(item.x);
        const Vector g = up.g(item, value);
        for (int i = 0; i < 8; ++i) {
          sums[i] += g.v[i];
          sums[8 + i] += g.v[i] * (value.v[i] - mean.v[i]);
        }
      });
      write_partial(a.size, sums, a.partial, shared);
    }

    CELLCAM_KERNEL gradient(GradientArguments arguments) {
      const Pixels& size = arguments.size;
      const int channel = first_channel();
      const Passing up(arguments.up, size, channel);
      T* const dx = static_cast<T*>(arguments.dx);
      T* const residual = static_cast<T*>(arguments.residual);
      Vector a = factors(arguments.a, size, channel);
      Vector c = factors(arguments.c, size, channel);
      const Vector b = factors(arguments.b, size, channel);
      const Vector mean = factors(arguments.mean, size, channel);
      if (arguments.weights != nullptr) {
        const Vector weights = image_factors(arguments.weights, size, channel);
        const Vector of_means = image_factors(arguments.of_means, size, channel);
        const float share = 1.0f / static_cast<float>(size.pixels);
        for (int i = 0; i < 8; ++i) c.v[i] += a.v[i] * of_means.v[i] * share;
        for (int i = 0; i < 8; ++i) a.v[i] *= weights.v[i];
      }
      each_pixel<2>(size, channel, [&](long long at) { return up.read(at); }, [&](long long at, const Passed& item) {
        Vector value = unpacked(item.x);
        const Vector g = up.g(item, value);
        for (int i = 0; i < 8; ++i) value.v[i] = g.v[i] * a.v[i] + (value.v[i] - mean.v[i]) * b.v[i] + c.v[i];
        store(dx + at, value);
        if (residual != nullptr) store(residual + at, g);
      });
    }

    CELLCAM_KERNEL image_sums(ImageSumsArguments a) {
      const int each = 2 * a.channels;
      const int at = blockIdx.x * blockDim.x + threadIdx.x;
      if (at >= a.images * each) return;
      const float* from = a.partial + static_cast<long long>(at / each) * a.slices * each + at % each;
      double sum = 0;
      for (int i = 0; i < a.slices; ++i) sum += from[static_cast<long long>(i) * each];
      a.sums[at] = static_cast<float>(sum);
    }

    // Both sums of a channel over all rows, for every thread of its column. read(row, both) gives what one row adds.
    // shared: 3 for each thread, and 64 more.
    template <typename F>
    __device__ void over_rows(int rows, bool inside, double* shared, double (&sums)[2], const F& read) {
      double found[2] = {};
      for (int row = threadIdx.y; inside && row < rows; row += 4 * blockDim.y) {
        double four[4][2] = {};
        for (int i = 0; i < 4; ++i) {
          if (row + i * static_cast<int>(blockDim.y) < rows) read(row + i * blockDim.y, four[i]);
        }
        for (int i = 0; i < 4; ++i) found[0] += four[i][0];
        for (int i = 0; i < 4; ++i) found[1] += four[i][1];
      }
      double* const totals = shared + 3 * blockDim.x * blockDim.y;
      column_sums(found, shared, [&](int i, int x, double sum) { totals[i * blockDim.x + x] = sum; });
      __syncthreads();
      sums[0] = totals[threadIdx.x];
      sums[1] = totals[blockDim.x + threadIdx.x];
    }

    CELLCAM_KERNEL statistics(StatisticsArguments a) {
      __shared__ double shared[3 * 1024 + 64];
      const int channel = blockIdx.x * blockDim.x + threadIdx.x;
      const bool inside = channel < a.channels;
      const auto sums_of = [&](int row, int which) { return a.sums[(2ll * row + which) * a.channels + channel]; };
      double both[2];
      over_rows(a.rows, inside, shared, both, [&](int row, double (&out)[2]) {
        out[0] = sums_of(row, 0);
        out[1] = sums_of(row, 1);
      });
      if (channel == 0 && threadIdx.y == 0) *a.batches_tracked += 1;
      if (!inside) return;
      const double offset = both[0] / a.count;
      const double spread = both[1] / a.count - offset * offset;
      const double variance = spread > 0 ? spread : 0;
      const double mean = unpacked(fetch(static_cast<const T*>(a.x) + channel / 8 * 8)).v[channel % 8] + offset;
      const double inverse = 1 / sqrt(variance + a.epsilon);
      const double scale = a.weight[channel] * inverse;
      if (threadIdx.y == 0) {
        a.mean[channel] = static_cast<float>(mean);
        a.inverse[channel] = static_cast<float>(inverse);
        a.scale[channel] = static_cast<float>(scale);
        a.shift[channel] = static_cast<float>(a.bias[channel] - mean * scale);
        a.running_mean[channel] += static_cast<float>(a.momentum * (mean - a.running_mean[channel]));
        a.running_var[channel] += static_cast<float>(a.momentum * (variance * a.count / (a.count - 1) - a.running_var[channel]));
      }
      if (a.means == nullptr) return;
      const double share = a.rows / a.count;
      for (int row = threadIdx.y; row < a.rows; row += blockDim.y) {
        const double of_image = sums_of(row, 0) * share - offset;
        a.offset[row * a.channels + channel] = static_cast<float>(of_image);
        a.means[row * a.channels + channel] = static_cast<float>(of_image * scale + a.bias[channel]);
      }
    }

    CELLCAM_KERNEL excitation_gradient(ExcitationGradientArguments a) {
      const int at = blockIdx.x * blockDim.x + threadIdx.x;
      if (at >= a.images * a.channels) return;
      const int channel = at % a.channels;
      const float* const sums = a.sums + 2ll * (at / a.channels) * a.channels + channel;
      const float w = a.weights[at];
      const float of_weight = sums[a.channels] * (a.weight[channel] * a.inverse[channel]) + sums[0] * a.bias[channel];
      a.of_logits[at] = of_weight * w * (1 - w);
    }

    CELLCAM_KERNEL norm_gradient(NormGradientArguments a) {
      __shared__ double shared[3 * 1024 + 64];
      const int channel = blockIdx.x * blockDim.x + threadIdx.x;
      const bool inside = channel < a.channels;
      double both[2];
      over_rows(a.rows, inside, shared, both, [&](int row, double (&out)[2]) {
        out[0] = a.sums[2ll * row * a.channels + channel];
        out[1] = a.sums[(2ll * row + 1) * a.channels + channel];
        if (a.weights == nullptr) return;
        const int at = row * a.channels + channel;
        const double of_mean = a.of_means[at];
        out[0] = out[0] * a.weights[at] + of_mean;
        out[1] = out[1] * a.weights[at] + of_mean * a.offset[at];
      });
      if (!inside || threadIdx.y != 0) return;
      const double inverse = a.inverse[channel];
      const double of_g = a.weight[channel] * inverse;
      a.a[channel] = static_cast<float>(of_g);
      a.b[channel] = static_cast<float>(-of_g * inverse * inverse * both[1] / a.count);
      a.c[channel] = static_cast<float>(-of_g * both[0] / a.count);
      a.of_weight[channel] = static_cast<float>(both[1] * inverse);
      a.of_bias[channel] = static_cast<float>(both[0]);
    }

    // Where 8 values lie in an array of (images, height, width, channels).
    struct Place {
      int image;
      int row;
      int column;
      int channel;
      bool inside;

      __device__ Place(int images, int height, int width, int channels) {
        long long at = blockIdx.x * static_cast<long long>(blockDim.x) + threadIdx.x;
        const int vectors = channels / 8;
        channel = 8 * static_cast<int>(at % vectors);
        at /= vectors;
        column = static_cast<int>(at % width);
        at /= width;
        row = static_cast<int>(at % height);
        image = static_cast<int>(at / height);
        inside = image < images;
      }
    };

    __device__ long long offset(const Place& p, int height, int width, int channels, int row, int column) {
      return ((p.image * static_cast<long long>(height) + row) * width + column) * channels + p.channel;
    }

    CELLCAM_KERNEL max_pool(MaxPoolArguments a) {
      const Place p(a.images, a.y_height, a.y_width, a.channels);
      if (!p.inside) return;
      Vector most = {};
      int where[8];
      for (int i = 0; i < 8; ++i) where[i] = -1;
      for (int k = 0; k < 9; ++k) {
        const int row = 2 * p.row - 1 + k / 3;
        const int column = 2 * p.column - 1 + k % 3;
        if (row < 0 || row >= a.height || column < 0 || column >= a.width) continue;
        const Vector value = unpacked(fetch(static_cast<const T*>(a.x) + offset(p, a.height, a.width, a.channels, row, column)));
        for (int i = 0; i < 8; ++i) {
          if (where[i] >= 0 && value.v[i] <= most.v[i]) continue;
          if (where[i] >= 0 && most.v[i] != most.v[i]) continue;
          most.v[i] = value.v[i];
          where[i] = k;
        }
      }
      const long long to = offset(p, a.y_height, a.y_width, a.channels, p.row, p.column);
      store(static_cast<T*>(a.y) + to, most);
      for (int i = 0; i < 8; ++i) a.which[to + i] = static_cast<unsigned char>(where[i]);
    }

    CELLCAM_KERNEL max_pool_gradient(MaxPoolGradientArguments a) {
      const Place p(a.images, a.height, a.width, a.channels);
      if (!p.inside) return;
      Vector sum = {};
      for (int row = p.row / 2; row <= (p.row + 1) / 2 && row < a.y_height; ++row) {
        for (int column = p.column / 2; column <= (p.column + 1) / 2 && column < a.y_width; ++column) {
          const int k = 3 * (p.row - 2 * row + 1) + p.column - 2 * column + 1;
          const long long from = offset(p, a.y_height, a.y_width, a.channels, row, column);
          const Vector dy = unpacked(fetch(static_cast<const T*>(a.dy) + from));
          for (int i = 0; i < 8; ++i) sum.v[i] += a.which[from + i] == k ? dy.v[i] : 0;
        }
      }
      store(static_cast<T*>(a.dx) + offset(p, a.height, a.width, a.channels, p.row, p.column), sum);
    }
)
