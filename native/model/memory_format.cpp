#include "model/memory_format.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <mutex>
#include <tuple>

#include "model/recorded.h"
#include "model/switches.h"

namespace cellcam::model {

namespace {

constexpr std::int64_t kBatch = 16, kSize = 256;
constexpr int kTimed = 9;

// What a format gains does not depend on which algorithms cuDNN takes, and its search for them takes long: half a minute for NCHW.
struct WithoutSearch {
  bool before = at::globalContext().benchmarkCuDNN();
  WithoutSearch() { at::globalContext().setBenchmarkCuDNN(false); }
  ~WithoutSearch() { at::globalContext().setBenchmarkCuDNN(before); }
};

Recorded::Tensors pass(PuzzleCam& model, const at::Tensor& images, Precision precision, bool training) {
  const at::AutoGradMode grad(training);
  at::Tensor sum;
  {
    const Autocast autocast(model.device(), precision);
    const PuzzleOutput out = model.forward(images, /*tiled=*/training);
    sum = training ? out.logits.sum() + out.tiled_logits.sum() : out.logits.sum();
  }
  if (!training) return {sum};
  for (at::Tensor& p : model.parameters()) p.mutable_grad() = at::Tensor();
  sum.backward();
  return {sum.detach()};
}

// A model in one of the formats. Its passes run as they will later: recorded, where that can be done, or else the time of launching small
// kernels would decide.
class Candidate {
 public:
  Candidate(const PuzzleCam& like, at::MemoryFormat format, Precision precision, bool training)
      : model_(like.info().name, like.num_classes(), like.in_channels()), recorded_(like.device()), precision_(precision) {
    model_.move_to(like.device());
    model_.train(training);
    model_.lay_out(format);
  }

  void run(const at::Tensor& images) {
    const WithoutSearch heuristics;  // a model that is moved to a device turns the search on
    recorded_({}, {images}, [&](const Recorded::Tensors& inputs) { return pass(model_, inputs[0], precision_, model_.is_training()); });
    const auto turn = device_turn();
    if (model_.device().is_cuda()) c10::impl::VirtualGuardImpl(model_.device().type()).synchronizeDevice(model_.device().index());
  }

  void time(const at::Tensor& images) {
    using Clock = std::chrono::steady_clock;
    const auto start = Clock::now();
    run(images);
    least_ = std::min(least_, std::chrono::duration<double>(Clock::now() - start).count());
  }

  double least() const { return least_; }

 private:
  PuzzleCam model_;
  Recorded recorded_;
  Precision precision_;
  double least_ = std::numeric_limits<double>::infinity();  // seconds of a pass
};

// In turns, so that whatever else the device does for a while slows down both.
at::MemoryFormat measure(const PuzzleCam& like, Precision precision, bool training) {
  const at::Tensor images = at::linspace(-2, 2, kBatch * like.in_channels() * kSize * kSize, at::TensorOptions(like.device()).dtype(at::kFloat))
                                .view({kBatch, like.in_channels(), kSize, kSize});
  Candidate nhwc(like, at::MemoryFormat::ChannelsLast, precision, training), nchw(like, at::MemoryFormat::Contiguous, precision, training);
  for (Candidate* c : {&nhwc, &nchw}) {
    for (int i = 0; i < Recorded::kWarmUps + 2; ++i) c->run(images);
  }
  for (int i = 0; i < kTimed; ++i) {
    nhwc.time(images);
    nchw.time(images);
  }
  return nhwc.least() < nchw.least() ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

}  // namespace

at::MemoryFormat fastest_memory_format(const PuzzleCam& model, Precision precision, bool training) {
  static std::map<std::tuple<std::string, std::string, Precision, bool>, at::MemoryFormat> known;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
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
