#pragma once
#include <memory>
#include <vector>

#include "model/block_cache.h"
#include "model/cancellation.h"
#include "model/precision.h"
#include "model/puzzle_cam.h"
#include "model/recorded.h"
#include "training/augment/augment.h"

namespace cellcam::inference {

struct Prediction {
  at::Tensor logits;  // (B, K) float32 on the CPU
  at::Tensor maps;    // (B, K, h, w) float32 on the CPU, before relu
};

// An ensemble: logits and activation maps are the means over its models.
class Predictor {
 public:
  Predictor(std::vector<std::shared_ptr<model::PuzzleCam>> models, model::Precision precision, std::vector<float> mean,
            std::vector<float> std);

  // images (B, H, W, C) uint8 on the CPU. flips: the mean over the image, its two mirror images and it turned by 180°, maps turned back.
  Prediction predict(const at::Tensor& images, bool flips = false);

  void cancel() { cancel_ = true; }

 private:
  // Logits and maps on the device.
  model::Recorded::Tensors passes(const at::Tensor& images, bool flips);
  // What decides which operations they run: a recording of them holds only as long as this stays.
  std::vector<std::int64_t> key(bool flips) const;

  model::BlockCache blocks_;
  std::vector<std::shared_ptr<model::PuzzleCam>> models_;
  model::Precision precision_;
  training::augment::Normalisation normalise_;
  model::Recorded recorded_;
  model::CancelFlag cancel_{false};
};

}  // namespace cellcam::inference
