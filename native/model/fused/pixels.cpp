#include "model/fused/pixels.h"

#include <algorithm>

#include "model/fused/threads.h"

namespace cellcam::model::fused {

namespace {

constexpr std::int64_t kBlock = 64;  // pixels whose sums stay in float32
constexpr std::int64_t kRuns = 4;    // of them that are summed up by themselves first: the longer a sum in float32, the more it rounds
constexpr std::int64_t kParts = 32;  // that threads share: so many that none waits long for the others

// Calls f(T) with the tensor's type of value.
template <typename F>
auto with_type(const at::Tensor& x, F f) {
  return x.scalar_type() == at::kFloat ? f(float{}) : f(bf16{});
}

template <typename T>
T* data(const at::Tensor& x) {
  return x.defined() ? static_cast<T*>(x.data_ptr()) : nullptr;
}

// Calls f(part, image, first row, rows) for stretches of rows within one image, in parallel. Parts are of whole blocks, and there are no more of them for
// more threads: what is summed up does not depend on these.
class Parts {
 public:
  explicit Parts(const Shape& s) : s_(s), blocks_((s.pixels + kBlock - 1) / kBlock) {
    const std::int64_t all = s.images * blocks_, least = std::max<std::int64_t>(1, 32768 / (kBlock * s.channels));
    count_ = std::clamp<std::int64_t>(all / least, 1, kParts);
  }
  std::int64_t count() const { return count_; }
  std::int64_t first_image(std::int64_t part) const { return first_block(part) / blocks_; }
  std::int64_t images(std::int64_t part) const { return (first_block(part + 1) - 1) / blocks_ + 1 - first_image(part); }

  template <typename F>
  void for_rows(const F& f) const {
    Numbers parts(count_);
    const auto work = [&] {
      parts.each([&](std::int64_t part) {
        for (std::int64_t block = first_block(part), end = first_block(part + 1); block < end;) {
          const std::int64_t image = block / blocks_, next = std::min(end, (image + 1) * blocks_);
          const std::int64_t first = (block - image * blocks_) * kBlock, last = std::min((next - image * blocks_) * kBlock, s_.pixels);
          f(part, image, image * s_.pixels + first, last - first);
          block = next;
        }
      });
    };
    if (count_ == 1) work();
    else on_all_threads(work);
  }

 private:
  std::int64_t first_block(std::int64_t part) const { return s_.images * blocks_ * part / count_; }

  const Shape& s_;
  std::int64_t blocks_, count_;
};

// `add(first row, rows, sum, other)` adds the sums of some rows.
template <typename F>
ImageSums image_sums(const Shape& s, const F& add) {
  const Parts parts(s);
  std::vector<ImageSums> partial(static_cast<std::size_t>(parts.count()));
  parts.for_rows([&](std::int64_t part, std::int64_t image, std::int64_t first, std::int64_t count) {
    ImageSums& mine = partial[static_cast<std::size_t>(part)];
    const auto size = static_cast<std::size_t>(parts.images(part) * s.channels);
    mine.sum.resize(size);
    mine.other.resize(size);
    const std::int64_t run = 2 * s.channels;
    std::vector<float> block(static_cast<std::size_t>(kRuns * run));
    const float *a = block.data(), *b = a + run, *c = b + run, *d = c + run;
    const std::int64_t at = (image - parts.first_image(part)) * s.channels;
    double *sum = mine.sum.data() + at, *other = mine.other.data() + at;
    for (std::int64_t row = first; row < first + count; row += kBlock) {
      std::fill(block.begin(), block.end(), 0.0f);
      const std::int64_t rows = std::min(kBlock, first + count - row);
      for (std::int64_t i = 0; i < kRuns; ++i) {
        const std::int64_t begin = rows * i / kRuns;
        add(row + begin, rows * (i + 1) / kRuns - begin, block.data() + i * run, block.data() + i * run + s.channels);
      }
      const auto add_runs = [&](std::int64_t at, double* sums) {
        for (std::int64_t i = 0; i < s.channels; ++i) sums[i] += (a[at + i] + b[at + i]) + (c[at + i] + d[at + i]);
      };
      add_runs(0, sum);
      add_runs(s.channels, other);
    }
  });
  const auto size = static_cast<std::size_t>(s.images * s.channels);
  ImageSums total{std::vector<double>(size), std::vector<double>(size)};
  for (std::size_t part = 0; part < partial.size(); ++part) {
    const ImageSums& mine = partial[part];
    const std::int64_t at = parts.first_image(static_cast<std::int64_t>(part)) * s.channels;
    double *sum = total.sum.data() + at, *other = total.other.data() + at;
    for (std::size_t i = 0; i < mine.sum.size(); ++i) {
      sum[i] += mine.sum[i];
      other[i] += mine.other[i];
    }
  }
  return total;
}

// Calls f(kernels, first value, first factor, rows) for stretches of rows. Factors are (channels) or (images, channels).
template <typename T, typename F>
void with_factors(const Shape& s, const Factors& factors, const F& f) {
  const std::int64_t step = static_cast<std::int64_t>(factors.size()) == s.channels ? 0 : s.channels;
  Parts(s).for_rows([&](std::int64_t, std::int64_t image, std::int64_t row, std::int64_t rows) {
    f(row_kernels(T{}), row * s.channels, image * step, rows);
  });
}

}  // namespace

Factors to_factors(const at::Tensor& x) { return {floats(x), floats(x) + x.numel()}; }

std::vector<double> over_images(const std::vector<double>& values, const Shape& s) {
  std::vector<double> total(static_cast<std::size_t>(s.channels));
  const double* of_image = values.data();
  for (std::int64_t image = 0; image < s.images; ++image, of_image += s.channels) {
    for (std::int64_t c = 0; c < s.channels; ++c) total[static_cast<std::size_t>(c)] += of_image[c];
  }
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
  with_type(x, [&](auto type) {
    using T = decltype(type);
    with_factors<T>(s, scale, [&](const auto& kernels, std::int64_t at, std::int64_t k, std::int64_t rows) {
      kernels.apply(data<T>(x) + at, residual.defined() ? data<T>(residual) + at : nullptr, rows, s.channels, scale.data() + k, shift.data() + k, slope,
                    data<T>(y) + at);
    });
  });
}

ImageSums gradient_sums(const at::Tensor& dy, const at::Tensor& x, const Shape& s, const float* centre, const Activation& act) {
  return with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto& kernels = row_kernels(type);
    return image_sums(s, [&](std::int64_t row, std::int64_t rows, float* sum, float* products) {
      const std::int64_t at = row * s.channels;
      kernels.gradient_moments(data<T>(dy) + at, data<T>(x) + at, rows, s.channels, centre, act.scale, act.shift, act.slope, sum, products);
    });
  });
}

ImageSums added_gradient_sums(const at::Tensor& dy, const at::Tensor& again, const at::Tensor& y, const at::Tensor& x, const Shape& s, const float* centre,
                              Slope slope, const at::Tensor& g) {
  return with_type(x, [&](auto type) {
    using T = decltype(type);
    const auto& kernels = row_kernels(type);
    return image_sums(s, [&](std::int64_t row, std::int64_t rows, float* sum, float* products) {
      const std::int64_t at = row * s.channels;
      kernels.added_gradient_moments(data<T>(dy) + at, again.defined() ? data<T>(again) + at : nullptr, data<T>(y) + at, data<T>(x) + at, rows,
                                     s.channels, centre, slope, data<T>(g) + at, sum, products);
    });
  });
}

void gradient(const at::Tensor& dy, const at::Tensor& x, const Activation& act, const GradientFactors& f, const at::Tensor& dx) {
  const Shape s(x);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    with_factors<T>(s, f.a, [&](const auto& kernels, std::int64_t at, std::int64_t k, std::int64_t rows) {
      kernels.gradient(data<T>(dy) + at, data<T>(x) + at, rows, s.channels, act.scale, act.shift, act.slope, f.a.data() + k, f.b.data() + k, f.c.data() + k,
                       data<T>(dx) + at);
    });
  });
}

void added_gradient(const at::Tensor& g, const at::Tensor& x, const GradientFactors& f, const at::Tensor& dx) {
  const Shape s(x);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    with_factors<T>(s, f.a, [&](const auto& kernels, std::int64_t at, std::int64_t k, std::int64_t rows) {
      kernels.added_gradient(data<T>(g) + at, data<T>(x) + at, rows, s.channels, f.a.data() + k, f.b.data() + k, f.c.data() + k, data<T>(dx) + at);
    });
  });
}

void max_pool(const at::Tensor& x, const at::Tensor& y, const at::Tensor& which) {
  const std::int64_t height = x.size(2), in = x.size(3), channels = x.size(1), rows = y.size(2), width = y.size(3);
  with_type(x, [&](auto type) {
    using T = decltype(type);
    for_stretches(y.size(0) * rows, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const T* seen[3];
        for (std::int64_t r = 0; r < 3; ++r) {
          const std::int64_t row = i % rows * 2 - 1 + r;
          seen[r] = row >= 0 && row < height ? data<T>(x) + (i / rows * height + row) * in * channels : nullptr;
        }
        const std::int64_t to = i * width * channels;
        row_kernels(type).max_pool(seen, in, width, channels, data<T>(y) + to, which.defined() ? data<std::uint8_t>(which) + to : nullptr);
      }
    });
  });
}

void max_pool_gradient(const at::Tensor& dy, const at::Tensor& which, const at::Tensor& dx) {
  const std::int64_t height = dx.size(2), in = dx.size(3), channels = dx.size(1), rows = dy.size(2), width = dy.size(3);
  with_type(dx, [&](auto type) {
    using T = decltype(type);
    for_stretches(dx.size(0) * height, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t image = i / height, row = i % height;
        PooledRow<T> seen_by[2];
        for (std::int64_t o = row / 2; o <= (row + 1) / 2 && o < rows; ++o) {
          const std::int64_t at = (image * rows + o) * width * channels;
          seen_by[o - row / 2] = {data<T>(dy) + at, data<std::uint8_t>(which) + at, static_cast<int>(row - (2 * o - 1))};
        }
        row_kernels(type).max_pool_gradient(seen_by, in, width, channels, data<T>(dx) + i * in * channels);
      }
    });
  });
}

}  // namespace cellcam::model::fused
