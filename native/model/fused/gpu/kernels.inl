// Batch norm and what follows it on a GPU. Included where CELLCAM_KERNELS(name, ...) and CELLCAM_KERNEL are defined: as text for the run-time
// compiler, and as C++ by the tests, where threads are the CPU's. T is the type of values; Packed is 8 of them as they lie in memory, Vector as
// float. No preprocessor lines inside.
CELLCAM_KERNELS(kNormKernels,

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
    // Reads kAtOnce of them before the first is used, so that as many are on their way. With kFromEnd the last pixels come first: of what a
    // sweep before has read or written to the end, the end is still in the cache.
    template <int kAtOnce, bool kFromEnd, typename Read, typename Use>
    __device__ void each_pixel(const Pixels& size, int channel, const Read& read, const Use& use) {
      if (channel >= size.channels) return;
      const long long image = kFromEnd ? gridDim.z - 1 - blockIdx.z : blockIdx.z;
      const long long origin = (image + (kFromEnd ? 1 : 0)) * size.pixels - (kFromEnd ? 1 : 0);
      const long long first = blockIdx.y * blockDim.y + threadIdx.y;
      const long long stride = static_cast<long long>(size.slices) * blockDim.y;
      const long long step = (kFromEnd ? -stride : stride) * size.channels;
      long long at = (kFromEnd ? origin - first : origin + first) * size.channels + channel;
      long long pixel = first;
      for (; pixel + (kAtOnce - 1) * stride < size.pixels; pixel += kAtOnce * stride) {
        decltype(read(at)) items[kAtOnce];
        for (int i = 0; i < kAtOnce; ++i) items[i] = read(at + i * step);
        for (int i = 0; i < kAtOnce; ++i) use(at + i * step, items[i]);
        at += kAtOnce * step;
      }
      for (; pixel < size.pixels; pixel += stride) {
        use(at, read(at));
        at += step;
      }
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

    // Of the image of a sweep from the end.
    __device__ Vector image_factors(const float* all, const Pixels& size, int channel) {
      return factors(all + (gridDim.z - 1 - blockIdx.z) * static_cast<long long>(size.channels), size, channel);
    }

    struct Pair {
      Packed first;
      Packed second;
    };

    struct Three {
      Packed dy;
      Packed again;
      Packed x;
      unsigned positive;
    };

    // Adds g and g * (x - mean) to sums, 8 of each.
    __device__ void add_gradient(const Vector& g, const Vector& x, const Vector& mean, float (&sums)[16]) {
      for (int i = 0; i < 8; ++i) {
        sums[i] += g.v[i];
        sums[8 + i] += g.v[i] * (x.v[i] - mean.v[i]);
      }
    }

    // dy behind the activation of x * scale + shift.
    struct Activation {
      Vector scale;
      Vector shift;
      float slope;

      __device__ Vector g(const Packed& dy, const Vector& x) const {
        Vector out = unpacked(dy);
        for (int i = 0; i < 8; ++i) out.v[i] = x.v[i] * scale.v[i] + shift.v[i] > 0 ? out.v[i] : slope * out.v[i];
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
      each_pixel<4, false>(a.size, channel, [&](long long at) { return fetch(x + at); }, [&](long long, const Packed& packed) {
        const Vector value = unpacked(packed);
        for (int i = 0; i < 8; ++i) {
          const float d = value.v[i] - centre.v[i];
          sums[i] += d;
          sums[8 + i] += d * d;
        }
      });
      write_partial(a.size, sums, a.partial, shared);
    }

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
        Pair out;
        out.first = fetch(x + at);
        out.second = residual != nullptr ? fetch(residual + at) : out.first;
        return out;
      };
      each_pixel<4, true>(a.size, channel, read, [&](long long at, const Pair& item) {
        Vector value = unpacked(item.first);
        const Vector added = unpacked(item.second);
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
      const T* const x = static_cast<const T*>(a.x);
      const T* const dy = static_cast<const T*>(a.dy);
      const Vector mean = factors(a.mean, a.size, channel);
      const Activation act = {factors(a.scale, a.size, channel), factors(a.shift, a.size, channel), a.slope};
      float sums[16] = {};
      const auto read = [&](long long at) { return Pair{fetch(dy + at), fetch(x + at)}; };
      each_pixel<4, false>(a.size, channel, read, [&](long long, const Pair& item) {
        const Vector value = unpacked(item.second);
        add_gradient(act.g(item.first, value), value, mean, sums);
      });
      write_partial(a.size, sums, a.partial, shared);
    }

    CELLCAM_KERNEL added_gradient_sums(AddedGradientSumsArguments a) {
      __shared__ float shared[17 * 256];
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(a.x);
      const T* const dy = static_cast<const T*>(a.dy);
      const T* const again = static_cast<const T*>(a.again);
      const Vector mean = factors(a.mean, a.size, channel);
      float sums[16] = {};
      const auto read = [&](long long at) {
        return Three{fetch(dy + at), again != nullptr ? fetch(again + at) : Packed{}, fetch(x + at), a.positive[at / 8]};
      };
      each_pixel<2, false>(a.size, channel, read, [&](long long at, const Three& item) {
        Vector g = unpacked(item.dy);
        const Vector more = unpacked(item.again);
        for (int i = 0; i < 8; ++i) g.v[i] += more.v[i];
        for (int i = 0; i < 8; ++i) g.v[i] = (item.positive >> i & 1) != 0 ? g.v[i] : a.slope * g.v[i];
        add_gradient(g, unpacked(item.x), mean, sums);
        store(static_cast<T*>(a.g) + at, g);
      });
      write_partial(a.size, sums, a.partial, shared);
    }

    // What dx takes of g and of x for each channel, beside a constant.
    struct Linear {
      Vector a;
      Vector b;
      Vector c;
      Vector mean;

      __device__ Vector dx(const Vector& g, Vector x) const {
        for (int i = 0; i < 8; ++i) x.v[i] = g.v[i] * a.v[i] + (x.v[i] - mean.v[i]) * b.v[i] + c.v[i];
        return x;
      }
    };

    CELLCAM_KERNEL gradient(GradientArguments a) {
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(a.x);
      const T* const dy = static_cast<const T*>(a.dy);
      const Activation act = {factors(a.scale, a.size, channel), factors(a.shift, a.size, channel), a.slope};
      const Linear linear = {factors(a.a, a.size, channel), factors(a.b, a.size, channel), factors(a.c, a.size, channel),
                             factors(a.mean, a.size, channel)};
      const auto read = [&](long long at) { return Pair{fetch(dy + at), fetch(x + at)}; };
      each_pixel<4, true>(a.size, channel, read, [&](long long at, const Pair& item) {
        const Vector value = unpacked(item.second);
        store(static_cast<T*>(a.dx) + at, linear.dx(act.g(item.first, value), value));
      });
    }

    CELLCAM_KERNEL added_gradient(AddedGradientArguments a) {
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(a.x);
      const T* const g = static_cast<const T*>(a.g);
      Linear linear = {factors(a.a, a.size, channel), factors(a.b, a.size, channel), factors(a.c, a.size, channel),
                       factors(a.mean, a.size, channel)};
      if (a.weights != nullptr) {
        const Vector weights = image_factors(a.weights, a.size, channel);
        const Vector of_means = image_factors(a.of_means, a.size, channel);
        const float share = 1.0f / static_cast<float>(a.size.pixels);
        for (int i = 0; i < 8; ++i) linear.c.v[i] += linear.a.v[i] * of_means.v[i] * share;
        for (int i = 0; i < 8; ++i) linear.a.v[i] *= weights.v[i];
      }
      const auto read = [&](long long at) { return Pair{fetch(g + at), fetch(x + at)}; };
      each_pixel<4, true>(a.size, channel, read, [&](long long at, const Pair& item) {
        store(static_cast<T*>(a.dx) + at, linear.dx(unpacked(item.first), unpacked(item.second)));
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
)
