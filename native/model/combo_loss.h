#pragma once
#include "model/puzzle_cam.h"

namespace cellcam::model {

// Weights of the classification loss, the tiled classification loss and the distance of the two maps; 0 skips a term.
struct ComboLossOptions {
  double alpha = 1.0;
  double beta = 1.0;
  double gamma = 0.5;
};

// Scalars; a skipped term is a constant 0.
struct ComboLossValue {
  at::Tensor total;  // alpha * full + beta * tiled + gamma * l1
  at::Tensor full;   // binary cross-entropy of the logits, mean over (B, K)
  at::Tensor tiled;  // the same of the tiled logits
  at::Tensor l1;     // mean |maps - tiled maps|
};

// targets (B, K) in {0, 1}. Without tiled outputs only the first term counts, as for a plain classifier.
// Throws Error ERR_INVALID_ARG when the two maps differ in size.
ComboLossValue combo_loss(const PuzzleOutput& output, const at::Tensor& targets, const ComboLossOptions& options);

}  // namespace cellcam::model
