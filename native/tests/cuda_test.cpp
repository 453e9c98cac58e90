// What only a CUDA device can show, each against the CPU; skipped without one.
#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <torch/cuda.h>

#include <cmath>

#include "check.h"
#include "checkpoint/state_dict.h"
#include "generated.h"
#include "inference/predictor.h"
#include "model/fused/gpu/launch.h"
#include "model/memory_format.h"
#include "training/augment/window_median.h"
#include "training/trainer.h"

namespace cellcam::tests {
namespace {

constexpr std::int64_t kClasses = 19, kChannels = 4, kSize = 128;
const std::vector<float> kMean(kChannels, 0.5f), kStd(kChannels, 0.25f);

void need_cuda() {
  if (!torch::cuda::is_available()) throw Skipped("no CUDA device");
  at::globalContext().setAllowTF32CuDNN(false);  // its convolutions would be as coarse as those of float16
}

std::shared_ptr<model::PuzzleCam> model_on(at::Device device, const std::string& backbone = "seresnext50_32x4d") {
  auto model = std::make_shared<model::PuzzleCam>(backbone, kClasses, kChannels);
  checkpoint::NamedTensors state = checkpoint::state_dict(*model);
  for (auto& [name, tensor] : state) tensor = state_tensor(name, 1, tensor);
  checkpoint::load_state_dict(*model, state);
  model->move_to(device);
  return model;
}

// The losses of steps of which most can be recorded: images and learning rates change at each, once the batch is smaller, and later on
// half of the network is frozen. Adam's first steps go by gradients' signs, so that roundings grow: with 30 times these rates two ways of
// rounding on the CPU are 2 % apart after six steps.
std::vector<double> losses_of_steps(at::Device device, model::Precision precision) {
  const auto model = model_on(device);
  training::TrainerOptions options;
  options.precision = precision;
  options.mean = kMean;
  options.std = kStd;
  options.scaler.init_scale = 1024;  // no step is left out for an overflow
  training::Trainer trainer(model, options);
  std::vector<double> losses;
  for (int i = 0; i < 16; ++i) {
    const std::int64_t batch = i == 6 ? 1 : 2;
    if (i == 10) model->set_trainable("cnn1.mfeatures.layer1", false);
    const auto seed = static_cast<std::uint64_t>(i % 3 + 1);
    const at::Tensor targets = uniforms("target", seed, {batch, kClasses}).lt(0.15).to(at::kFloat);
    losses.push_back(trainer.step(input_images({batch, kChannels, kSize, kSize}, seed), targets, i % 5 == 4 ? 0 : 3e-6 * (i + 1)).total);
  }
  return losses;
}

const Register steps("recorded training steps go the way of the CPU's", [] {
  need_cuda();
  const std::vector<double> expected = losses_of_steps(at::kCPU, model::Precision::fp32);
  for (const model::Precision precision : {model::Precision::fp32, model::Precision::bf16, model::Precision::fp16}) {
    const std::vector<double> found = losses_of_steps(at::Device("cuda:0"), precision);
    const double limit = precision == model::Precision::fp32 ? 0.01 : 0.05;
    for (std::size_t i = 0; i < found.size(); ++i) {
      check_near(found[i], expected[i], limit, model::precision_name(precision) + ", step " + std::to_string(i));
    }
  }
});

const Register predictions("recorded predictions equal the CPU's, also after a change of weights", [] {
  need_cuda();
  const auto on_cpu = model_on(at::kCPU), on_cuda = model_on(at::Device("cuda:0"));
  inference::Predictor expected({on_cpu}, model::Precision::fp32, kMean, kStd), found({on_cuda}, model::Precision::fp32, kMean, kStd);
  for (int i = 0; i < 24; ++i) {
    if (i == 12) {
      for (const auto& m : {on_cpu, on_cuda}) {
        const at::NoGradGuard no_grad;
        m->named_parameters()["cnn1.mclassifier.weight"].mul_(-0.5);
        m->named_parameters()["cnn1.mfeatures.layer4.0.bn1.weight"].mul_(1.5);
      }
    }
    const at::Tensor images = (uniforms("bytes", static_cast<std::uint64_t>(i), {3, kSize, kSize, kChannels}) * 255).to(at::kByte);
    const bool flips = i % 8 == 7;
    const inference::Prediction a = expected.predict(images, flips), b = found.predict(images, flips);
    const double distance = (a.maps - b.maps).abs().max().item<double>(), size = a.maps.abs().max().item<double>();
    check(distance < 0.01 * size, "maps of prediction " + std::to_string(i) + " are " + std::to_string(distance) + " apart, of " + std::to_string(size));
  }
});

const Register stale("predictions see the weights of steps that were replayed", [] {
  need_cuda();
  const auto model = model_on(at::Device("cuda:0"));
  training::TrainerOptions options;
  options.mean = kMean;
  options.std = kStd;
  training::Trainer trainer(model, options);
  inference::Predictor predictor({model}, model::Precision::fp32, kMean, kStd);
  const at::Tensor images = (uniforms("bytes", 1, {2, kSize, kSize, kChannels}) * 255).to(at::kByte);
  const at::Tensor inputs = input_images({2, kChannels, kSize, kSize}, 1), targets = uniforms("target", 1, {2, kClasses}).lt(0.15).to(at::kFloat);
  for (int i = 0; i < 10; ++i) {
    trainer.step(inputs, targets, 1e-3);
    model->eval();
    const inference::Prediction found = predictor.predict(images);
    const auto fresh = std::make_shared<model::PuzzleCam>("seresnext50_32x4d", kClasses, kChannels);
    checkpoint::NamedTensors state;
    for (const auto& [name, tensor] : checkpoint::state_dict(*model)) state.emplace_back(name, tensor.cpu());
    checkpoint::load_state_dict(*fresh, state);
    fresh->move_to(at::kCPU);
    const inference::Prediction expected = inference::Predictor({fresh}, model::Precision::fp32, kMean, kStd).predict(images);
    const double distance = (found.maps - expected.maps).abs().max().item<double>(), size = expected.maps.abs().max().item<double>();
    check(distance < 0.01 * size, "after step " + std::to_string(i) + " maps are " + std::to_string(distance) + " apart, of " + std::to_string(size));
  }
});

// Losses and probabilities of an epoch of augmented batches, which the device makes while it works on the ones before.
training::EpochTally fed_epoch(at::Device device) {
  constexpr std::int64_t kImages = 24, kBatch = 2, kSide = 96;
  const at::Tensor pixels = (uniforms("bytes", 1, {kImages, kSide, kSide, kChannels}) * 255).to(at::kByte);
  training::TrainerOptions options;
  options.mean = kMean;
  options.std = kStd;
  options.augmentation.mixup = 0.5;
  training::Trainer trainer(model_on(device, "resnet18"), options);
  training::EpochRequest request;
  request.batch = kBatch;
  request.height = request.width = kSide;
  request.crop = 64;
  request.targets = uniforms("target", 1, {kImages, kClasses}).lt(0.15).to(at::kByte);
  request.learning_rates.assign(kImages / kBatch, 3e-6);
  at::Tensor ring = at::empty({kImages / kBatch, kBatch, kSide, kSide, kChannels}, at::kByte);
  training::BatchQueue queue(ring.data_ptr<std::uint8_t>(), ring.size(0), ring.stride(0), 0, ring.size(0));
  for (std::int64_t i = 0; i < ring.size(0); ++i) {
    const training::Lease lease = *queue.acquire(0).lease;
    ring[lease.slot].copy_(pixels.narrow(0, lease.batch * kBatch, kBatch));
    queue.publish(lease);
  }
  return trainer.run_epoch(queue, request, std::nullopt, [](const training::Progress&) {});
}

const Register fed("an epoch fed with augmented batches goes the way of the CPU's", [] {
  need_cuda();
  const training::EpochTally expected = fed_epoch(at::kCPU), found = fed_epoch(at::Device("cuda:0"));
  check(found.complete && found.images == expected.images, "not all images were seen");
  for (int i = 0; i < 4; ++i) check_near(found.sums[i].item<double>(), expected.sums[i].item<double>(), 0.01, "loss " + std::to_string(i));
  const double distance = (found.probabilities - expected.probabilities).abs().max().item<double>();
  check(distance < 0.02, "probabilities are " + std::to_string(distance) + " apart");
});

const Register medians("a GPU's medians of windows are exact", [] {
  need_cuda();
  const at::Tensor images = (uniforms("bytes", 1, {3, 37, 53, kChannels}) * 255).to(at::kByte);
  for (const std::int64_t side : {3, 5, 7}) {
    const at::Tensor found = training::augment::window_median(images.to(at::Device("cuda:0")), side).cpu();
    check(found.equal(training::augment::window_median(images, side)), "other medians of " + std::to_string(side) + " pixels a side");
  }
});

const Register formats("the memory format is measured once a backbone", [] {
  need_cuda();
  const auto model = model_on(at::Device("cuda:0"), "resnet18");
  const at::MemoryFormat first = model::fastest_memory_format(*model, model::Precision::fp16, true);
  check(first == at::MemoryFormat::ChannelsLast || first == at::MemoryFormat::Contiguous, "neither of the two formats");
  check(model::fastest_memory_format(*model, model::Precision::fp16, true) == first, "another format the second time");
});

const Register compiled("a GPU's kernels compile for several generations", [] {
  for (const auto dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const int major : {8, 9, 10}) {
      try {
        check(!model::fused::gpu::compile(model::fused::gpu::kernel_source(dtype), major, 0).empty(), "no machine code");
      } catch (const c10::Error& e) {
        throw Skipped("CUDA's run-time compiler is not to be had: " + std::string(e.what_without_backtrace()).substr(0, 100));
      }
    }
  }
});

}  // namespace
}  // namespace cellcam::tests
