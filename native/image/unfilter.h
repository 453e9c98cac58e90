#pragma once

#include <cstdint>

namespace cellcam::image {

/**
 * Undoes the filters of a PNG's rows in place: height rows of one byte naming the filter and row_bytes filtered bytes become height
 * rows of row_bytes. Samples of two bytes become little-endian.
 * @param sample_bytes of a pixel: 1 or 2
 * @return false for a filter that PNG does not have; the memory is then of no more use
 * Source: Portable Network Graphics Specification (Third Edition), section 9.
 */
bool unfilter(std::uint8_t* data, std::int64_t height, std::int64_t row_bytes, std::int64_t sample_bytes);

}  // namespace cellcam::image
