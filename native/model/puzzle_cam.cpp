#include "model/puzzle_cam.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>

#include "error.h"
#include "model/tiles.h"

namespace cellcam::model {

namespace {
struct Cnn : torch::nn::Module {};  // the name `cnn1` of the published weights
}

PuzzleCam::PuzzleCam(const std::string& backbone, std::int64_t num_classes, std::int64_t in_channels, double dropout)
    : info_(find_backbone(backbone)),
      num_classes_(num_classes),
      in_channels_(in_channels),
      dropout_(dropout),
      format_(usual_format(at::kCPU)),
      features_(info_.create(in_channels)),
      classifier_(torch::nn::Conv2dOptions(info_.out_channels, num_classes, 1).bias(false)) {
  auto cnn = std::make_shared<Cnn>();
  cnn->register_module("mfeatures", features_);
  cnn->register_module("mclassifier", classifier_);
  register_module("cnn1", cnn);
}

at::MemoryFormat PuzzleCam::usual_format(at::Device device) const {
  const bool channels_last = device.is_cuda() ? info_.channels_last_cuda : info_.channels_last_cpu;
  return channels_last ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

void PuzzleCam::move_to(at::Device device) {
  to(device);
  // Sizes stay the same for thousands of steps, so cuDNN's search pays; what it finds may differ from run to run.
  if (device.is_cuda() && !at::globalContext().deterministicAlgorithms()) at::globalContext().setBenchmarkCuDNN(true);
  lay_out(usual_format(device));
}

void PuzzleCam::lay_out(at::MemoryFormat format) {
  format_ = format;
  for (at::Tensor& p : parameters()) {
    if (p.dim() == 4) p.set_data(p.detach().contiguous(format));
  }
}

std::int64_t PuzzleCam::set_trainable(const std::string& prefix, bool trainable) {
  std::int64_t found = 0;
  for (auto& p : named_parameters()) {
    if (p.key().rfind(prefix, 0) != 0) continue;
    p.value().set_requires_grad(trainable);
    if (!trainable) p.value().mutable_grad() = at::Tensor();
    ++found;
  }
  return found;
}

Views PuzzleCam::activation_maps(const Views& images) {
  return features_->forward(images.map([&](const at::Tensor& view) { return view.contiguous(format_); })).map([&](at::Tensor features) {
    if (dropout_ > 0) features = at::dropout(features, dropout_, is_training());
    const at::Tensor maps = classifier_(features);
    return maps.scalar_type() == at::kDouble ? maps : maps.to(at::kFloat);
  });
}

PuzzleOutput PuzzleCam::forward(const at::Tensor& images, bool tiled) {
  const Views maps = activation_maps({images, tiled ? cut_tiles(images) : at::Tensor()});
  PuzzleOutput out;
  out.maps = maps.whole;
  out.logits = out.maps.mean({2, 3});
  if (tiled) {
    out.tiled_maps = merge_tiles(maps.tiles);
    out.tiled_logits = out.tiled_maps.mean({2, 3});
  }
  return out;
}

}  // namespace cellcam::model
