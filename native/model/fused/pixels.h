#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "model/fused/rows.h"

namespace cellcam::model::fused {

// The loops of rows.h over all pixels of NHWC tensors of float32 or bfloat16 on the CPU, in parallel. What lies between such loops is a
// plain array: so many small tensors would take longer than the pixels.

constexpr auto kNhwc = at::MemoryFormat::ChannelsLast;

class Shape {
 public:
  std::int64_t images, pixels, channels;  // pixels of one image
  explicit Shape(const at::Tensor& x) : images(x.size(0)), pixels(x.size(2) * x.size(3)), channels(x.size(1)) {}
  std::int64_t rows() const { return images * pixels; }
  // All pixels as those of one image, where no image's own figures are wanted.
  Shape whole() const { return Shape(1, rows(), channels); }

 private:
  Shape(std::int64_t n, std::int64_t p, std::int64_t c) : images(n), pixels(p), channels(c) {}
};

// What the loops multiply by and add, (channels) or (images, channels).
using Factors = std::vector<float>;
Factors to_factors(const at::Tensor& x);

// The values of a float32 tensor.
inline const float* floats(const at::Tensor& x) { return x.const_data_ptr<float>(); }

// Calls f(image * channels + channel, channel) for all of them.
template <typename F>
void for_channels(const Shape& s, const F& f) {
  const auto channels = static_cast<std::size_t>(s.channels), size = static_cast<std::size_t>(s.images) * channels;
  for (std::size_t first = 0; first < size; first += channels) {
    for (std::size_t c = 0; c < channels; ++c) f(first + c, c);
  }
}

// Two sums over each image's pixels, (images, channels) each, in float64 over blocks of pixels in float32.
struct ImageSums {
  std::vector<double> sum, other;
};

// The sum over images of (images, channels).
std::vector<double> over_images(const std::vector<double>& values, const Shape& s);

// The values of the first pixel.
Factors first_pixel(const at::Tensor& x);

// Sums of x - centre and of its square.
ImageSums moments(const at::Tensor& x, const Shape& s, const Factors& centre);

// y = act(x * scale + shift + residual).
void scale_act(const at::Tensor& x, const at::Tensor& residual, const Factors& scale, const Factors& shift, Slope slope,
               const at::Tensor& y);

// Sums of g and of g (x - centre), g being the gradient before the activation. `centre` (channels).
ImageSums gradient_sums(const at::Tensor& dy, const at::Tensor& x, const Shape& s, const float* centre, const Activation& act);
// dx = g a + x b + c. dx may be dy.
struct GradientFactors {
  Factors a, b, c;
  explicit GradientFactors(std::size_t size) : a(size), b(size), c(size) {}
};
void gradient(const at::Tensor& dy, const at::Tensor& x, const Activation& act, const GradientFactors& f, const at::Tensor& dx);

// The same where a residual was added: the output's sign tells what the activation did. g, of dy and `again` together, is written by the first.
// `again` may be undefined.
ImageSums added_gradient_sums(const at::Tensor& dy, const at::Tensor& again, const at::Tensor& y, const at::Tensor& x, const Shape& s, const float* centre,
                              Slope slope, const at::Tensor& g);
void added_gradient(const at::Tensor& g, const at::Tensor& x, const GradientFactors& f, const at::Tensor& dx);

// y = the largest of 3x3 values of x around every second pixel and row; `which` of the nine, of bytes, may be undefined.
void max_pool(const at::Tensor& x, const at::Tensor& y, const at::Tensor& which);
void max_pool_gradient(const at::Tensor& dy, const at::Tensor& which, const at::Tensor& dx);

}  // namespace cellcam::model::fused
