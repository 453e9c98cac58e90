// Components and morphology against what they are by definition, on noise.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "cells/components.h"
#include "cells/mirror.h"
#include "cells/morphology.h"
#include "cells/smooth.h"
#include "check.h"
#include "random.h"

namespace cellcam::tests {
namespace {

using namespace cells;

Labels noise(std::int64_t height, std::int64_t width, int values, std::uint64_t seed) {
  Random random(seed, "noise");
  Labels out(height, width);
  for (std::int32_t& v : out.values) v = static_cast<std::int32_t>(random.uniform() * values);
  return out;
}

// By flooding, pixel by pixel.
Labels flooded(const Labels& image, Neighbours neighbours) {
  Labels out(image.height, image.width);
  std::int32_t next = 0;
  for (std::int64_t i = 0; i < image.size(); ++i) {
    if (image[i] == 0 || out[i] != 0) continue;
    out[i] = ++next;
    for (std::vector<std::int64_t> todo{i}; !todo.empty();) {
      const std::int64_t at = todo.back(), y = at / image.width, x = at % image.width;
      todo.pop_back();
      for (std::int64_t dy = -1; dy <= 1; ++dy) {
        for (std::int64_t dx = -1; dx <= 1; ++dx) {
          const std::int64_t v = y + dy, u = x + dx, to = v * image.width + u;
          if (v < 0 || u < 0 || v >= image.height || u >= image.width) continue;
          if (neighbours == Neighbours::four && dy != 0 && dx != 0) continue;
          if (image[to] != image[i] || out[to] != 0) continue;
          out[to] = next;
          todo.push_back(to);
        }
      }
    }
  }
  return out;
}

const Register component_cases("components are those of flooding, numbered by their first pixels", [] {
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const Labels image = noise(1 + seed % 23, 1 + (7 * seed) % 41, 2 + static_cast<int>(seed % 3), seed);
    const Mask mask = map_grid<std::uint8_t>(image, [](std::int32_t v) { return v != 0; });
    const Labels ones = map_grid<std::int32_t>(mask, [](std::uint8_t v) { return v; });
    for (const Neighbours n : {Neighbours::four, Neighbours::eight}) {
      check(components(image, n).values == flooded(image, n).values, "labels, seed " + std::to_string(seed));
      check(components(mask, n).values == flooded(ones, n).values, "mask, seed " + std::to_string(seed));
    }
  }
});

const Register small_cases("what is small is removed, holes are filled", [] {
  const std::string picture =
      "1110000"
      "1010110"
      "1110100"
      "0000000"
      "1000011";
  Mask mask(5, 7);
  for (std::int64_t i = 0; i < mask.size(); ++i) mask[i] = picture[static_cast<std::size_t>(i)] == '1';
  Mask kept = mask;
  remove_small(kept, 3, Neighbours::four);
  check(kept.row(4)[0] == 0 && kept.row(4)[6] == 0 && kept.row(1)[4] == 1, "small parts are gone");
  Mask filled = mask;
  fill_holes(filled);
  check(filled.row(1)[1] == 1 && filled.row(1)[3] == 0, "the hole is filled, the outside is not");
  Mask holes = mask;
  fill_small_holes(holes, 2);
  check(holes.row(1)[1] == 1 && holes.row(3)[0] == 0, "only the small hole is filled");
});

const Register closing_cases("closing with a disk is its definition, mirrored at the edges", [] {
  for (const std::int64_t radius : {1, 2, 3, 6}) {
    const Labels image = noise(19, 26, 5, static_cast<std::uint64_t>(radius));
    const auto extreme = [&](const Labels& in, bool largest) {
      Labels out(in.height, in.width);
      for (std::int64_t y = 0; y < in.height; ++y) {
        for (std::int64_t x = 0; x < in.width; ++x) {
          std::int32_t best = in.row(y)[x];
          for (std::int64_t dy = -radius; dy <= radius; ++dy) {
            for (std::int64_t dx = -radius; dx <= radius; ++dx) {
              if (dx * dx + dy * dy > radius * radius) continue;
              const std::int32_t v = in.row(mirrored(y + dy, in.height))[mirrored(x + dx, in.width)];
              best = largest ? std::max(best, v) : std::min(best, v);
            }
          }
          out.row(y)[x] = best;
        }
      }
      return out;
    };
    check(close_with_disk(image, radius).values == extreme(extreme(image, true), false).values, "radius " + std::to_string(radius));
  }
});

const Register distance_cases("the distance transform is the distance to the nearest pixel outside", [] {
  const Mask mask = map_grid<std::uint8_t>(noise(17, 23, 8, 3), [](std::int32_t v) { return v != 0; });
  const Plane got = distance_transform(mask);
  for (std::int64_t i = 0; i < mask.size(); ++i) {
    double nearest = INFINITY;
    for (std::int64_t k = 0; k < mask.size(); ++k) {
      if (mask[k] == 0) nearest = std::min(nearest, std::hypot(i / mask.width - k / mask.width, i % mask.width - k % mask.width));
    }
    check_near(got[i], nearest, 1e-5, "pixel " + std::to_string(i));
  }
  check(distance_transform(Mask(3, 4, 1)).values[0] == 5, "without an outside it is the diagonal");
});

}  // namespace
}  // namespace cellcam::tests
