#pragma once
#include <cstdint>

namespace cellcam::model::fused {

// Matrix products of float32 whose columns are cut into panels of kPanel, one vector of AVX-512 or two of AVX2: (columns / kPanel, rows, kPanel).
// What one loop reads lies together.
constexpr std::int64_t kPanel = 16;

struct PanelLoops {
  // c (rows, kPanel) = the product of a (panels, rows, kPanel), seen as (rows, panels * kPanel), and b (panels * kPanel, kPanel), added to what c
  // holds if `adds`.
  void (*multiply)(const float* a, std::int64_t rows, std::int64_t panels, const float* b, float* c, bool adds);

  // The products of a (rows, kPanel) transposed and each of `panels` panels, 1 or 2, of b (panels, rows, kPanel), to (kPanel, kPanel) at c and
  // `apart` floats after it.
  void (*multiply_transposed)(const float* a, const float* b, std::int64_t rows, std::int64_t panels, float* c, std::int64_t apart);
};

// For this CPU; null where it has no such vectors.
const PanelLoops* panel_loops();

}  // namespace cellcam::model::fused
