#pragma once
#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/views.h"

namespace cellcam::model {

// A convolutional network without pooling and head: (B, C, H, W) to (B, out_channels, ceil(H/stride), ceil(W/stride)).
class Backbone : public torch::nn::Module {
 public:
  virtual Views forward(Views images) = 0;
};

// All that is known about one backbone.
struct BackboneInfo {
  std::string name;
  std::int64_t out_channels;
  std::int64_t output_stride;
  // Whether (B, C, H, W) tensors lie as NHWC in memory; measured per backbone and kind of device.
  bool channels_last_cpu;
  bool channels_last_cuda;
  std::string stem;      // name of the convolution weight that sees the images, (out, C, k, k)
  std::string pretrained;  // Hugging Face hub id of its ImageNet weights
  std::function<std::shared_ptr<Backbone>(std::int64_t in_channels)> create;
};

// A backbone's own file makes one of these at namespace scope; nothing else needs to know of the backbone.
struct Registration {
  explicit Registration(BackboneInfo info);
};

// In the order of their names.
const std::vector<BackboneInfo>& backbones();
// Throws Error ERR_INVALID_ARG that lists the known names.
const BackboneInfo& find_backbone(const std::string& name);

// Bytes that a training step with float16 activations needs for weights, gradients, moments and what both passes keep for the
// backward pass, by counting what a small forward pass keeps. Images are size x size.
struct TrainingMemory {
  std::int64_t parameters;  // numbers, without the classifier's
  double bytes;
};
TrainingMemory training_memory(const BackboneInfo& info, std::int64_t batch, std::int64_t size);

}  // namespace cellcam::model
