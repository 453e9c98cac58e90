// Batch norm and what follows it on a GPU. Included where CELLCAM_KERNELS(...) and CELLCAM_KERNEL are defined: as text for the run-time compiler,
// and as C++ by the tests, where threads are the CPU's. T is the type of values; load and store take 8 of them as float. No preprocessor
// lines inside.
CELLCAM_KERNELS(

    // What every thread of a block has found, summed in a fixed order over the threads of one x, for those with y = 0.
    template <typename V, int kCount>
    __device__ void sum_over_y(V (&values)[kCount], V* shared) {
      const int thread = threadIdx.y * blockDim.x + threadIdx.x;
      const int threads = blockDim.x * blockDim.y;
      for (int i = 0; i < kCount; ++i) shared[i * threads + thread] = values[i];
      for (int half = blockDim.y / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.y < half) {
          for (int i = 0; i < kCount; ++i) shared[i * threads + thread] += shared[i * threads + thread + half * blockDim.x];
        }
      }
      for (int i = 0; i < kCount; ++i) values[i] = shared[i * threads + thread];
    }

    // f(offset of 8 values) for each pixel of this thread, none where it lies behind the last channel.
    template <typename F>
    __device__ void each_pixel(const Pixels& size, int channel, const F& f) {
      if (channel >= size.channels) return;
      const long long image = blockIdx.z * size.pixels * size.channels + channel;
      const long long step = static_cast<long long>(size.slices) * blockDim.y;
      for (long long p = blockIdx.y * blockDim.y + threadIdx.y; p < size.pixels; p += step) f(image + p * size.channels);
    }

    __device__ int first_channel() { return 8 * (blockIdx.x * blockDim.x + threadIdx.x); }

    // sums: 8 of the first kind, 8 of the second.
    __device__ void write_partial(const Pixels& size, int channel, float (&sums)[16], float* partial, float* shared) {
      sum_over_y(sums, shared);
      if (threadIdx.y != 0 || channel >= size.channels) return;
      float* const out = partial + (blockIdx.z * static_cast<long long>(size.slices) + blockIdx.y) * 2 * size.channels + channel;
      for (int i = 0; i < 8; ++i) out[i] = sums[i];
      for (int i = 0; i < 8; ++i) out[size.channels + i] = sums[8 + i];
    }

    // g of the upstream gradient; y only where something is cut off.
    __device__ Vector passed(const T* dy, const T* y, long long at, float slope) {
      Vector g = load(dy + at);
      if (slope == 1) return g;
      const Vector out = load(y + at);
      for (int i = 0; i < 8; ++i) g.v[i] = out.v[i] > 0 ? g.v[i] : slope * g.v[i];
      return g;
    }

    __device__ Vector factors(const float* all, const Pixels& size, int channel, int per_image) {
      const float* const from = all + (per_image ? blockIdx.z * static_cast<long long>(size.channels) : 0) + channel;
      Vector out;
      for (int i = 0; i < 8; ++i) out.v[i] = channel < size.channels ? from[i] : 0;
      return out;
    }

    CELLCAM_KERNEL moments(MomentsArguments a) {
      __shared__ float shared[16 * 256];
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(a.x);
      float sums[16] = {};
      if (channel < a.size.channels) {
        const Vector centre = load(x + channel);
        each_pixel(a.size, channel, [&](long long at) {
          const Vector value = load(x + at);
          for (int i = 0; i < 8; ++i) {
            const float d = value.v[i] - centre.v[i];
            sums[i] += d;
            sums[8 + i] += d * d;
          }
        });
      }
      write_partial(a.size, channel, sums, a.partial, shared);
    }

    CELLCAM_KERNEL scale_act(ScaleArguments a) {
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(a.x);
      const T* const residual = static_cast<const T*>(a.residual);
      T* const y = static_cast<T*>(a.y);
      const Vector scale = factors(a.scale, a.size, channel, a.per_image), shift = factors(a.shift, a.size, channel, a.per_image);
      each_pixel(a.size, channel, [&](long long at) {
        Vector value = load(x + at);
        for (int i = 0; i < 8; ++i) value.v[i] = value.v[i] * scale.v[i] + shift.v[i];
        if (residual != nullptr) {
          const Vector added = load(residual + at);
          for (int i = 0; i < 8; ++i) value.v[i] += added.v[i];
        }
        for (int i = 0; i < 8; ++i) value.v[i] = value.v[i] > 0 ? value.v[i] : a.slope * value.v[i];
        store(y + at, value);
      });
    }

    CELLCAM_KERNEL gradient_sums(GradientSumsArguments a) {
      __shared__ float shared[16 * 256];
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(a.x);
      const Vector mean = factors(a.mean, a.size, channel, 0);
      float sums[16] = {};
      each_pixel(a.size, channel, [&](long long at) {
        const Vector g = passed(static_cast<const T*>(a.dy), static_cast<const T*>(a.y), at, a.slope), value = load(x + at);
        for (int i = 0; i < 8; ++i) {
          sums[i] += g.v[i];
          sums[8 + i] += g.v[i] * (value.v[i] - mean.v[i]);
        }
      });
      write_partial(a.size, channel, sums, a.partial, shared);
    }

    CELLCAM_KERNEL gradient(GradientArguments arguments) {
      const int channel = first_channel();
      const T* const x = static_cast<const T*>(arguments.x);
      T* const dx = static_cast<T*>(arguments.dx);
      T* const residual = static_cast<T*>(arguments.residual);
      const Vector a = factors(arguments.a, arguments.size, channel, arguments.per_image);
      const Vector b = factors(arguments.b, arguments.size, channel, 0);
      const Vector c = factors(arguments.c, arguments.size, channel, arguments.per_image);
      const Vector mean = factors(arguments.mean, arguments.size, channel, 0);
      each_pixel(arguments.size, channel, [&](long long at) {
        const Vector g = passed(static_cast<const T*>(arguments.dy), static_cast<const T*>(arguments.y), at, arguments.slope);
        Vector value = load(x + at);
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

    // Both sums of one channel over all rows; whether this thread is the one to use them.
    __device__ bool over_rows(const float* sums, int rows, int channels, int channel, double (&both)[2], double* shared) {
      for (int row = threadIdx.y; channel < channels && row < rows; row += blockDim.y) {
        both[0] += sums[2ll * row * channels + channel];
        both[1] += sums[(2ll * row + 1) * channels + channel];
      }
      sum_over_y(both, shared);
      return threadIdx.y == 0 && channel < channels;
    }

    CELLCAM_KERNEL statistics(StatisticsArguments a) {
      __shared__ double shared[2 * 256];
      const int channel = blockIdx.x * blockDim.x + threadIdx.x;
      double both[2] = {};
      if (!over_rows(a.sums, a.rows, a.channels, channel, both, shared)) return;
      const double offset = both[0] / a.count;
      const double spread = both[1] / a.count - offset * offset;
      const double variance = spread > 0 ? spread : 0;
      const double mean = load(static_cast<const T*>(a.x) + channel / 8 * 8).v[channel % 8] + offset;
      const double inverse = 1 / sqrt(variance + a.epsilon);
      a.mean[channel] = static_cast<float>(mean);
      a.inverse[channel] = static_cast<float>(inverse);
      a.scale[channel] = static_cast<float>(a.weight[channel] * inverse);
      a.shift[channel] = static_cast<float>(a.bias[channel] - mean * a.weight[channel] * inverse);
      a.running_mean[channel] += static_cast<float>(a.momentum * (mean - a.running_mean[channel]));
      a.running_var[channel] += static_cast<float>(a.momentum * (variance * a.count / (a.count - 1) - a.running_var[channel]));
    }

    CELLCAM_KERNEL norm_gradient(NormGradientArguments a) {
      __shared__ double shared[2 * 256];
      const int channel = blockIdx.x * blockDim.x + threadIdx.x;
      double both[2] = {};
      if (!over_rows(a.sums, a.rows, a.channels, channel, both, shared)) return;
      const double inverse = a.inverse[channel];
      const double of_g = a.weight[channel] * inverse;
      a.a[channel] = static_cast<float>(of_g);
      a.b[channel] = static_cast<float>(-of_g * inverse * inverse * both[1] / a.count);
      a.c[channel] = static_cast<float>(-of_g * both[0] / a.count);
      a.of_weight[channel] = static_cast<float>(both[1] * inverse);
      a.of_bias[channel] = static_cast<float>(both[0]);
    }
)
