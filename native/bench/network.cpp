// Training steps or predictions of one network on generated weights and images, as many at a time as standard input asks for.
// Prints one JSON line when ready, with figures that tell whether it computes the same as its peers (bench/peers/network.py) and the
// seconds that getting ready took, and then one with the seconds of each step for every number that it reads.
// Usage: cellcam_bench (train|infer|curve) [--device cpu] [--backbone NAME] [--batch B] [--size S] [--threads N] [--precision auto] [--trace FILE]
//   --trace FILE: at the end of the input writes what one more step spends its time on, for chrome://tracing (kernels of a GPU included)
//   curve [--steps 200] [--seed 1]: prints the loss of each step from the weights of that seed, on batches in turn
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <chrono>
#include <functional>
#include <iostream>
#include <map>

#include "bench.h"
#include "checkpoint/state_dict.h"
#include "inference/predictor.h"
#include "tests/generated.h"
#include "training/trainer.h"

namespace cellcam::bench {

namespace {

constexpr std::int64_t kClasses = 19, kChannels = 4;

using Clock = std::chrono::steady_clock;
using Options = std::map<std::string, std::string>;

Options parse(const std::vector<std::string>& arguments) {
  Options options{{"device", "cpu"}, {"backbone", "seresnext50_32x4d"}, {"batch", "4"}, {"size", "192"}, {"threads", "0"}, {"precision", "auto"}, {"steps", "200"}, {"seed", "1"}, {"trace", ""}};
  for (std::size_t i = 1; i + 1 < arguments.size(); i += 2) {
    const auto found = options.find(arguments[i].substr(std::min<std::size_t>(2, arguments[i].size())));
    if (found == options.end()) throw std::invalid_argument("Unknown option " + arguments[i]);
    found->second = arguments[i + 1];
  }
  return options;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::shared_ptr<model::PuzzleCam> make_model(const std::string& backbone, at::Device device, std::uint64_t seed) {
  auto model = std::make_shared<model::PuzzleCam>(backbone, kClasses, kChannels);
  checkpoint::NamedTensors state = checkpoint::state_dict(*model);
  for (auto& [name, tensor] : state) tensor = tests::state_tensor(name, seed, tensor);
  checkpoint::load_state_dict(*model, state);
  model->move_to(device);
  return model;
}

void print(const std::string& name, const std::vector<double>& values, const std::string& more = "") {
  std::cout.precision(9);
  std::cout << "{" << more << "\"" << name << "\":[";
  for (std::size_t i = 0; i < values.size(); ++i) std::cout << (i == 0 ? "" : ",") << values[i];
  std::cout << "]}" << std::endl;
}

// Steps to be timed, and what they computed before that.
struct Work {
  std::function<void()> step;
  std::vector<double> check;
};

std::shared_ptr<training::Trainer> make_trainer(const std::shared_ptr<model::PuzzleCam>& model, model::Precision precision) {
  training::TrainerOptions options;
  options.precision = precision;
  options.mean.assign(kChannels, 0.5f);
  options.std.assign(kChannels, 0.25f);
  return std::make_shared<training::Trainer>(model, options);
}

at::Tensor targets_of(std::int64_t batch, std::uint64_t seed, at::Device device) {
  return tests::uniforms("target", seed, {batch, kClasses}).lt(0.15).to(at::kFloat).to(device);
}

std::vector<double> curve(training::Trainer& trainer, std::int64_t batch, std::int64_t size, std::int64_t steps, at::Device device) {
  constexpr std::int64_t kBatches = 16;
  std::vector<at::Tensor> images, targets;
  for (std::int64_t i = 1; i <= kBatches; ++i) {
    images.push_back(tests::input_images({batch, kChannels, size, size}, static_cast<std::uint64_t>(i)).to(device));
    targets.push_back(targets_of(batch, static_cast<std::uint64_t>(i), device));
  }
  std::vector<double> losses;
  for (std::int64_t i = 0; i < steps; ++i) {
    losses.push_back(trainer.step(images[static_cast<std::size_t>(i % kBatches)], targets[static_cast<std::size_t>(i % kBatches)], 3e-4).total);
  }
  return losses;
}

Work training(const std::shared_ptr<model::PuzzleCam>& model, model::Precision precision, const at::Tensor& images, std::int64_t batch) {
  const auto trainer = make_trainer(model, precision);
  const at::Tensor targets = targets_of(batch, 1, images.device());
  Work work{[=] { trainer->step(images, targets, 3e-4); }, {}};
  for (int i = 0; i < 3; ++i) work.check.push_back(trainer->step(images, targets, 3e-4).total);
  return work;
}

Work prediction(const std::shared_ptr<model::PuzzleCam>& model, model::Precision precision, const at::Tensor& normalised) {
  const std::vector<float> mean{0.485f, 0.456f, 0.406f, 0.485f}, std{0.229f, 0.224f, 0.225f, 0.229f};
  const auto spread = [](const std::vector<float>& values) { return at::tensor(values).view({1, kChannels, 1, 1}); };
  const at::Tensor values = normalised.cpu().mul(spread(std)).add_(spread(mean));
  const at::Tensor images = values.mul_(255).add_(0.5).to(at::kByte).permute({0, 2, 3, 1}).contiguous();
  auto predictor = std::make_shared<inference::Predictor>(std::vector{model}, precision, mean, std);
  Work work{[=] { predictor->predict(images, /*flips=*/false); }, {}};
  work.step();
  const inference::Prediction found = predictor->predict(images, false);
  for (std::int64_t k = 0; k < kClasses; ++k) work.check.push_back(found.logits[0][k].item<double>());
  work.check.push_back(found.maps.to(at::kDouble).norm().item<double>());
  return work;
}

void write_trace(const Work& work, at::Device device, const std::string& file) {
  namespace profiler = torch::autograd::profiler;
  std::set<profiler::ActivityType> kinds{profiler::ActivityType::CPU};
  if (device.is_cuda()) kinds.insert(profiler::ActivityType::CUDA);
  const profiler::ProfilerConfig config(profiler::ProfilerState::KINETO);
  profiler::prepareProfiler(config, kinds);
  profiler::enableProfiler(config, kinds);
  work.step();
  if (device.is_cuda()) torch::cuda::synchronize();
  profiler::disableProfiler()->save(file);
}

}  // namespace

int network(const std::vector<std::string>& arguments) {
  const auto begin = Clock::now();
  const Options options = parse(arguments);
  const at::Device device = model::choose_device(options.at("device"));
  const bool infers = arguments.front() == "infer";
  model::Precision precision = model::choose_precision(options.at("precision"), device);
  if (infers && precision == model::Precision::int16) precision = model::Precision::fp32;  // without gradients they are the same
  const std::int64_t batch = std::stoll(options.at("batch")), size = std::stoll(options.at("size"));
  if (const int threads = std::stoi(options.at("threads")); threads > 0) at::set_num_threads(threads);
  const auto model = make_model(options.at("backbone"), device, std::stoull(options.at("seed")));
  const std::string chosen = "\"precision\":\"" + model::precision_name(precision) + "\",";
  if (arguments.front() == "curve") {
    print("losses", curve(*make_trainer(model, precision), batch, size, std::stoll(options.at("steps")), device), chosen);
    return 0;
  }
  const at::Tensor images = tests::input_images({batch, kChannels, size, size}, 1).to(device);
  const Work work = infers ? prediction(model, precision, images) : training(model, precision, images, batch);
  print("check", work.check, "\"ready\":true,\"start_s\":" + std::to_string(seconds_since(begin)) + "," + chosen + "\"torch\":\"" TORCH_VERSION "\",");
  for (int steps = 0; std::cin >> steps;) {
    std::vector<double> seconds;
    for (int i = 0; i < steps; ++i) {
      const auto start = Clock::now();
      work.step();
      if (device.is_cuda()) torch::cuda::synchronize();
      seconds.push_back(seconds_since(start));
    }
    print("seconds", seconds);
  }
  if (!options.at("trace").empty()) write_trace(work, device, options.at("trace"));
  return 0;
}

}  // namespace cellcam::bench
