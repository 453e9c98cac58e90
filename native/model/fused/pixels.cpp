#include "model/fused/pixels.h"

#include <ATen/Parallel.h>

#include <algorithm>

namespace cellcam::model::fused {

namespace {

constexpr std::int64_t kBlock = 64;  // pixels whose sums stay in float32

// Calls f(T) with the tensor's type of value.
template <typename F>
auto with_type(const at::Tensor& x, F f) {
  return x.scalar_type() == at::kFloat ? f(float{}) : f(bf16{});
}

template <typename T>
T* data(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.data_ptr()) : nullptr;
}

// Calls f(image, first row, rows) for stretches of rows within one image, in parallel. Threads share blocks of rows, not rows: what a
// block sums up does not depend on their number.
template <typename F>
void for_rows(const Shape& s, const F& f) {
  const std::int64_t blocks = (s.pixels + kBlock - 1) / kBlock, grain = std::max<std::int64_t>(1, 32768 / (kBlock * s.channels));
  at::parallel_for(0, s.images * blocks, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t block = begin; block < end;) {
      const std::int64_t image = block / blocks, next = std::min(end, (image + 1) * blocks);
      const std::int64_t first = (block - image * blocks) * kBlock, last = std::min((next - image * blocks) * kBlock, s.pixels);
      f(image, image * s.pixels + first, last - first);
      block = next;
    }
  });
}

// `add(first row, rows, sum, other)` adds the sums of some rows.
template <typename F>
ImageSums image_sums(const Shape& s, const F& add) {
  const auto size = static_cast<std::size_t>(s.images * s.channels);
  std::vector<ImageSums> partial(static_cast<std::size_t>(at::get_num_threads()));
  for_rows(s, [&](std::int64_t image, std::int64_t first, std::int64_t count) {
    ImageSums& mine = partial[static_cast<std::size_t>(at::get_thread_num())];
    mine.sum.resize(size);
    mine.other.resize(size);
    std::vector<float> block(static_cast<std::size_t>(2 * s.channels));
    float *block_sum = block.data(), *block_other = block_sum + s.channels;
    for (std::int64_t row = first; row < first + count; row += kBlock) {
      std::fill(block.begin(), block.end(), 0.0f);
      add(row, std::min(kBlock, first + count - row), block_sum, block_other);
      double *sum = &mine.sum[static_cast<std::size_t>(image * s.channels)], *other = &mine.other[static_cast<std::size_t>(image * s.channels)];
      for (std::int64_t c = 0; c < s.channels; ++c) {
        sum[c] += block_sum[c];
        other[c] += block_other[c];
      }
    }
  });
  ImageSums total{std::vector<double>(size), std::vector<double>(size)};
  for (const ImageSums& mine : partial) {
    for (std::size_t i = 0; i < mine.sum.size(); ++i) {
      total.sum[i] += mine.sum[i];
      total.other[i] += mine.other[i];
    }
  }
  return total;
}

}  // namespace

Factors to_factors(const at::Tensor& x) { return {floats(x), floats(x) + x.numel()}; }

std::vector<double> over_images(const std::vector<double>& values, const Shape& s) {
  std::vector<double> total(static_cast<std::size_t>(s.channels));
  for (std::size_t i = 0; i < values.size(); ++i) total[i % total.size()] += values[i];
  return total;
}

Factors first_pixel(const at::Tensor& x) {
  const std::int64_t channels = x.size(1);
  const Factors zero(static_cast<std::size_t>(channels));
  Factors values(zero.size()), squares(zero.size());
  with_type(x, [&](auto type) {
    row_kernels(type).moments(data<decltype(type)>(x), 1, channels, zero.data(), values.data(), squares.data());
  });
  return values;
}

ImageSums moments(const at::Tensor& x, const Shape& s, const Factors& centre) {
  return with_type(x, [&](auto type) {
    const auto& kernels = row_kernels(type);
    return image_sums(s, [&](std::int64_t row, std::int64_t rows, float* sum, float* squares) {
      kernels.moments(data<decltype(type)>(x) + row * s.channels, rows, s.channels, centre.data(), sum, squares);
    });
  });
}

void scale_act(const at::Tensor& x, const at::Tensor& residual, const Factors& scale, const Factors& shift, Slope slope,
               const at::Tensor& y) {
  const Shape s(x);
  const std::int64_t step = static_cast<std::int64_t>(scale.size()) == s.channels ? 0 : s.channels;
  with_type(x, [&](auto type) {
    using T = decltype(type);
    for_rows(s, [&](std::int64_t image, std::int64_t row, std::int64_t rows) {
      const std::int64_t at = row * s.channels;
      row_kernels(type).apply(data<T>(x) + at, residual.defined() ? data<T>(residual) + at : nullptr, rows, s.channels,
                              scale.data() + image * step, shift.data() + image * step, slope, data<T>(y) + at);
    });
  });
}

ImageSums gradient_sums(const at::Tensor& dy, const at::Tensor& again, const at::Tensor& y, const at::Tensor& x, const Shape& s, const float* centre,
                        Slope slope, const at::Tensor& g) {
  return with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto& kernels = row_kernels(type);
    return image_sums(s, [&](std::int64_t row, std::int64_t rows, float* sum, float* products) {
      const std::int64_t at = row * s.channels;
      kernels.gradient_moments(data<T>(dy) + at, again.defined() ? data<T>(again) + at : nullptr, data<T>(y) + at, data<T>(x) + at, rows, s.channels,
                               centre, slope, g.defined() ? data<T>(g) + at : nullptr, sum, products);
    });
  });
}

void gradient(const at::Tensor& g, const at::Tensor& x, const GradientFactors& f, const at::Tensor& dx) {
  const Shape s(x);
  const std::int64_t step = static_cast<std::int64_t>(f.a.size()) == s.channels ? 0 : s.channels;
  with_type(x, [&](auto type) {
    using T = decltype(type);
    for_rows(s, [&](std::int64_t image, std::int64_t row, std::int64_t rows) {
      const std::int64_t at = row * s.channels, k = image * step;
      row_kernels(type).gradient(data<T>(g) + at, data<T>(x) + at, rows, s.channels, f.a.data() + k, f.b.data() + k, f.c.data() + k, data<T>(dx) + at);
    });
  });
}

}  // namespace cellcam::model::fused
