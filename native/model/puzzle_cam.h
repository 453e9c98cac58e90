#pragma once
#include <torch/nn/module.h>
#include <torch/nn/modules/conv.h>

#include <memory>
#include <string>
#include <utility>

#include "model/backbones/backbone.h"

namespace cellcam::model {

// The two views of a batch that Puzzle-CAM (arXiv 2101.11253) compares. The tiled ones are undefined unless asked for.
struct PuzzleOutput {
  at::Tensor logits;        // (B, K), spatial mean of maps
  at::Tensor maps;          // (B, K, h, w) activation maps, before relu
  at::Tensor tiled_logits;  // (B, K), spatial mean of tiled_maps
  at::Tensor tiled_maps;    // (B, K, h', w'), merged from the 2x2 tiles
};

// A backbone and a 1x1 classifier before the pooling, named cnn1.mfeatures and cnn1.mclassifier as in the published weights.
class PuzzleCam : public torch::nn::Module {
 public:
  // dropout: the chance that a feature is left out in training, before the classifier.
  PuzzleCam(const std::string& backbone, std::int64_t num_classes, std::int64_t in_channels, double dropout = 0);

  const BackboneInfo& info() const { return info_; }
  std::int64_t num_classes() const { return num_classes_; }
  std::int64_t in_channels() const { return in_channels_; }
  double dropout() const { return dropout_; }
  at::Device device() const { return classifier_->weight.device(); }

  // images (B, C, H, W), normalised, any size; for `tiled` H and W must be even. Maps and logits come back as float32
  // (float64 if the model is float64), whatever arithmetic autocast chose.
  PuzzleOutput forward(const at::Tensor& images, bool tiled);

  // Whether the parameters whose names begin so are learned; how many there are.
  std::int64_t set_trainable(const std::string& prefix, bool trainable);

  // To a device, in the memory format that is said to be this backbone's fastest there.
  void move_to(at::Device device);
  // Convolution weights, and from then on images, in this memory format.
  void lay_out(at::MemoryFormat format);
  // True but for the first call: a format is measured once a model, since optimisers keep memory that is laid out like the weights.
  bool format_settled() { return std::exchange(format_settled_, true); }

 private:
  Views activation_maps(const Views& images);
  at::MemoryFormat usual_format(at::Device device) const;

  const BackboneInfo& info_;
  std::int64_t num_classes_, in_channels_;
  double dropout_;
  at::MemoryFormat format_;
  bool format_settled_ = false;
  std::shared_ptr<Backbone> features_;
  torch::nn::Conv2d classifier_;
};

}  // namespace cellcam::model
