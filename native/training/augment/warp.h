#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <vector>

#include "training/augment/operation.h"

namespace cellcam::training::augment {

// Where an output pixel (x, y) looks in the image: (m0 x + m1 y + m2, m3 x + m4 y + m5).
using Affine = std::array<double, 6>;

// How one image is sampled, in numbers. Exactly one of the three is meant.
struct Sampling {
  enum class Kind { affine, axes, radial } kind = Kind::affine;
  Affine affine{1, 0, 0, 0, 1, 0};
  std::vector<float> map_x, map_y;  // axes: the source column of every column, the source row of every row
  double k = 0;                     // radial: OpticalDistortion's
};

// The sampling of a warp or of RandomResizedCrop for an image of height x width; of ElasticTransform, its affine part. Nothing
// where the operation is defined to leave the image as it is.
std::optional<Sampling> sampling_of(const Operation& operation, std::int64_t height, std::int64_t width);

// OpticalDistortion: where (x, y) looks.
inline std::array<double, 2> radial_source(double x, double y, double k, double height, double width) {
  const double u = (x - (width - 1) / 2) / width, v = (y - (height - 1) / 2) / height;
  const double r2 = u * u + v * v, gain = 1 + k * r2 + k * r2 * r2;
  return {width * u * gain + width / 2, height * v * gain + height / 2};
}

// ElasticTransform's displacements in pixels of several images, (n, 2, height, width) float32, dx before dy: uniform numbers
// from -1 to 1 smoothed by a Gaussian.
at::Tensor displacements(const std::vector<const Operation*>& operations, std::int64_t height, std::int64_t width,
                         at::Device device);

// Smoothing an axis by a Gaussian cut at 4 sigma, its border mirrored with the edge repeated, is diagonal in the cosines of
// DCT-II (Strang 1999). A wide Gaussian leaves only a few of them, so a field is smoothed in a few products.
struct Smoothing {
  at::Tensor cosines;  // (r, length) float32, orthonormal rows
  at::Tensor gains;    // (r) float32
  Smoothing(std::int64_t length, double sigma, at::Device device);
};

// field: (..., rows' length, columns' length)
at::Tensor smoothed(const at::Tensor& field, const Smoothing& rows, const Smoothing& columns);

}  // namespace cellcam::training::augment
