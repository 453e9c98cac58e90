#pragma once
#include <torch/nn/module.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace cellcam::model {

// A convolutional network without pooling and head: (B, C, H, W) to (B, out_channels, ceil(H/stride), ceil(W/stride)).
class Backbone : public torch::nn::Module {
 public:
  virtual torch::Tensor forward(torch::Tensor images) = 0;
};

// All that is known about one backbone; a family's file fills these in.
struct BackboneInfo {
  std::string name;
  std::int64_t out_channels;
  std::int64_t output_stride;
  // Whether (B, C, H, W) tensors lie as NHWC in memory; measured per backbone and kind of device.
  bool channels_last_cpu;
  bool channels_last_cuda;
  std::function<std::shared_ptr<Backbone>(std::int64_t in_channels)> create;
};

const std::vector<BackboneInfo>& backbones();
// Throws Error ERR_INVALID_ARG that lists the known names.
const BackboneInfo& find_backbone(const std::string& name);

std::vector<BackboneInfo> resnet_family();

}  // namespace cellcam::model
