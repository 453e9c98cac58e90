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

// Sums of g and of g (x - centre), g being the gradient before the activation, of dy and `again` together. `centre` (channels). `again` may be
// undefined; then g, which is written, may be too.
ImageSums gradient_sums(const at::Tensor& dy, const at::Tensor& again, const at::Tensor& y, const at::Tensor& x, const Shape& s, const float* centre,
                        Slope slope, const at::Tensor& g);

// y = act(x * scale + shift + residual).
void scale_act(const at::Tensor& x, const at::Tensor& residual, const Factors& scale, const Factors& shift, Slope slope,
               const at::Tensor& y);

// dx = g a + x b + c. dx may be g.
struct GradientFactors {
  Factors a, b, c;
  explicit GradientFactors(std::size_t size) : a(size), b(size), c(size) {}
};
void gradient(const at::Tensor& g, const at::Tensor& x, const GradientFactors& f, const at::Tensor& dx);

}  // namespace cellcam::model::fused
