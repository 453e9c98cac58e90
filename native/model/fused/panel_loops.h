#pragma once
#include <cstdint>

namespace cellcam::model::fused {

// Matrix products of float32 whose columns are cut into panels of kPanel, one vector of AVX-512 or two of AVX2: (columns / kPanel, rows, kPanel).
// What one loop reads lies together.
constexpr std::int64_t kPanel = 16;

struct PanelLoops {
  // c (rows, kPanel) = the product of a (panels, rows, kPanel), seen as (rows, panels * kPanel), and b (panels * kPanel, kPanel).
  void (*multiply)(const float* a, std::int64_t rows, std::int64_t panels, const float* b, float* c);

  // c (kPanel, kPanel) = the product of a (rows, kPanel) transposed and b (rows, kPanel), added to what c holds if `adds`.
  void (*multiply_transposed)(const float* a, const float* b, std::int64_t rows, bool adds, float* c);
};

// For this CPU; null where it has no such vectors.
const PanelLoops* panel_loops();

}  // namespace cellcam::model::fused
