#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>

#include <array>
#include <memory>

#include "model/cancellation.h"
#include "model/precision.h"

namespace cellcam::cells {

// A stage of a dual path network (arXiv 1707.01629): blocks, width of the 3x3, width of the residual path, growth of the dense one.
struct DpnStage {
  int blocks;
  std::int64_t width, residual, growth;
};

struct DpnConfig {
  std::int64_t stem = 64, groups = 32;
  std::array<DpnStage, 4> stages{{{3, 96, 256, 16}, {4, 192, 512, 32}, {20, 384, 1024, 24}, {3, 768, 2048, 128}}};  // DPN-92
};

// HPA-Cell-Segmentation's network: a U-Net on a dual path encoder. (B, 3, H, W), normalised, H and W multiples of 32 or one less, to
// logits (B, 3, H', W') of background, border and interior, H' and W' rounded up to multiples of 32. Names of weights are those of
// the published files.
class DpnUnet : public torch::nn::Module {
 public:
  explicit DpnUnet(const DpnConfig& config = {});

  // Throws Error ERR_INVALID_ARG for sizes that do not fit.
  at::Tensor forward(const at::Tensor& images);

  // images (B, 3, H, W) with values 0…1 on the CPU, to the softmax of the logits, float32 on the network's device. For a network in
  // evaluation mode.
  at::Tensor probabilities(const at::Tensor& images, model::Precision precision);

  void move_to(at::Device device);
  void cancel() { cancel_ = true; }

 private:
  static at::MemoryFormat memory_format();

  model::CancelFlag cancel_{false};
  torch::nn::ModuleList bottlenecks_, decoder_stages_, encoder_stages_;
  std::shared_ptr<torch::nn::Module> last_upsample_, final_;
};

}  // namespace cellcam::cells
