#include "model/memory_format.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <tuple>

#include "model/recorded.h"
#include "model/switches.h"

namespace cellcam::model {

namespace {

constexpr std::int64_t kBatch = 8, kSize = 256;
constexpr int kWarmUps = 2, kTimed = 5;  // cuDNN chooses its algorithms in the former

void pass(PuzzleCam& model, const at::Tensor& images, Precision precision, bool training) {
  const at::AutoGradMode grad(training);
  at::Tensor sum;
  {
    const Autocast autocast(model.device(), precision);
    const PuzzleOutput out = model.forward(images, /*tiled=*/training);
    sum = training ? out.logits.sum() + out.tiled_logits.sum() : out.logits.sum();
  }
  if (!training) return;
  for (at::Tensor& p : model.parameters()) p.mutable_grad() = at::Tensor();
  sum.backward();
}

double seconds_a_pass(PuzzleCam& model, const at::Tensor& images, Precision precision, bool training) {
  using Clock = std::chrono::steady_clock;
  const auto wait = [device = model.device()] {
    if (device.is_cuda()) c10::impl::VirtualGuardImpl(device.type()).synchronizeDevice(device.index());
  };
  for (int i = 0; i < kWarmUps; ++i) pass(model, images, precision, training);
  double least = std::numeric_limits<double>::infinity();
  for (int i = 0; i < kTimed; ++i) {
    wait();
    const auto start = Clock::now();
    pass(model, images, precision, training);
    wait();
    least = std::min(least, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return least;
}

at::MemoryFormat measure(const PuzzleCam& like, Precision precision, bool training) {
  PuzzleCam model(like.info().name, like.num_classes(), like.in_channels());
  model.move_to(like.device());
  model.train(training);
  const at::Tensor images = at::linspace(-2, 2, kBatch * like.in_channels() * kSize * kSize, at::TensorOptions(like.device()).dtype(at::kFloat))
                                .view({kBatch, like.in_channels(), kSize, kSize});
  const auto seconds = [&](at::MemoryFormat format) {
    model.lay_out(format);
    return seconds_a_pass(model, images, precision, training);
  };
  return seconds(at::MemoryFormat::ChannelsLast) < seconds(at::MemoryFormat::Contiguous) ? at::MemoryFormat::ChannelsLast
                                                                                         : at::MemoryFormat::Contiguous;
}

}  // namespace

at::MemoryFormat fastest_memory_format(const PuzzleCam& model, Precision precision, bool training) {
  static std::map<std::tuple<std::string, std::string, Precision, bool>, at::MemoryFormat> known;
  const auto turn = device_turn();
  const std::tuple key(model.info().name, model.device().str(), precision, training);
  auto found = known.find(key);
  if (found == known.end()) found = known.emplace(key, measure(model, precision, training)).first;
  return found->second;
}

std::shared_ptr<PuzzleCam> in_fastest_format(std::shared_ptr<PuzzleCam> model, Precision precision, bool training) {
  static const bool on = switched_on("CELLCAM_MEASURE_FORMAT");
  if (on && model->device().is_cuda() && !model->format_settled()) model->lay_out(fastest_memory_format(*model, precision, training));
  return model;
}

}  // namespace cellcam::model
