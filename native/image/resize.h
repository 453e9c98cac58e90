#pragma once

#include <cstdint>
#include <vector>

namespace cellcam::image {

enum class Dtype { u8, u16, f32 };

/** One channel of a field, h × w, row-major; nothing is owned. Neighbouring pixels lie `stride` elements apart and
 *  rows w·stride, so a channel of an interleaved image is a plane with stride = channels. */
struct Plane {
  const void* data;
  Dtype dtype;
  std::int64_t stride;
};

/**
 * Resizes a field of C planes to (H, W, C) as scikit-image's `resize(image, (H, W), anti_aliasing=True)` does with the
 * float32 image value/divisor: Gaussian of sigma max(0, (n/N - 1)/2) along each axis with mirrored borders, linear
 * sampling at pixel centres, clipped to the extremes of all input planes. Sums are in double, rounded to float32 after each
 * Gaussian pass and after sampling, as there.
 *
 * `out_hwc` has room for H·W·C values. Planes may differ in dtype. Safe to call from several threads at once.
 * Throws std::invalid_argument for no planes or a size below 1.
 */
void resize_to_float(const std::vector<Plane>& planes, std::int64_t h, std::int64_t w, double divisor, float* out_hwc,
                     std::int64_t H, std::int64_t W);

/** The same, then floor(255·x) in float32: x in [0, 1] becomes 0…255; values outside (and NaN) are brought into range. */
void resize_to_uint8(const std::vector<Plane>& planes, std::int64_t h, std::int64_t w, double divisor,
                     std::uint8_t* out_hwc, std::int64_t H, std::int64_t W);

/** What brings a field into [0, 1]: 65535 if any value of any plane exceeds 255, else 255 (16-bit files can hold 8-bit data). */
double field_divisor(const std::vector<Plane>& planes, std::int64_t h, std::int64_t w);

}  // namespace cellcam::image
