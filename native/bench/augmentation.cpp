// What the augmentation costs, beside the training step that it is made for. Prints one JSON object.
// Usage: cellcam_bench augmentation [device] [backbone or none] [batch] [crop] [seconds per figure] [operations]
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/cuda.h>

#include <chrono>
#include <functional>
#include <iostream>
#include <string>

#include "bench.h"
#include "checkpoint/init.h"
#include "model/precision.h"
#include "training/augment/augment.h"
#include "training/augment/sampler.h"
#include "training/trainer.h"

namespace {

using namespace cellcam;
using training::augment::Op;
using training::augment::Recipe;

double g_seconds = 3;

// Mean seconds of a call, after one that does not count.
double timed(at::Device device, const std::function<void()>& call) {
  using Clock = std::chrono::steady_clock;
  const auto wait = [&] {
    if (device.is_cuda()) torch::cuda::synchronize();
  };
  call();
  wait();
  const auto start = Clock::now();
  double elapsed = 0;
  int calls = 0;
  do {
    call();
    if (++calls % 4 == 0 || !device.is_cuda()) wait();
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  } while (elapsed < g_seconds);
  wait();
  return std::chrono::duration<double>(Clock::now() - start).count() / calls;
}

struct Task {
  at::Device device;
  std::int64_t batch, size, crop;
  at::Tensor images, memory;
  std::int64_t epoch = 0;

  Task(at::Device on, std::int64_t b, std::int64_t c)
      : device(on), batch(b), size(c == 384 ? 512 : c), crop(c),
        images(at::avg_pool2d(at::rand({b, 4, size, size}), {9, 9}, {1, 1}, {4, 4}).mul_(255).to(at::kByte).permute({0, 2, 3, 1}).contiguous().to(on)) {}

  std::vector<Recipe> drawn() {
    std::vector<Recipe> recipes;
    ++epoch;
    for (std::int64_t i = 0; i < batch; ++i) {
      recipes.push_back(training::augment::draw(training::augment::image_seed(1, epoch, i), size, size, {crop, crop}, 4, {}));
    }
    return recipes;
  }

  // The whole pass of a training batch: draws, operations, normalisation.
  void pass(const training::augment::Normalisation& normalise) { training::augment::prepare(images, drawn(), normalise, memory); }

  // Only one operation, on every image.
  double seconds_of(Op op) {
    Recipe found;
    for (std::uint64_t seed = 0; found.empty(); ++seed) {
      for (const auto& o : training::augment::draw(seed, size, size, {crop, crop}, 4, {})) {
        if (o.op == op) found = {o};
      }
    }
    const std::vector<Recipe> recipes(static_cast<std::size_t>(batch), found);
    const at::Tensor cropped = images.slice(1, 0, crop).slice(2, 0, crop).contiguous();
    return timed(device, [&] { training::augment::apply(cropped, recipes); });
  }
};

double step_seconds(at::Device device, const std::string& backbone, std::int64_t batch, std::int64_t crop) {
  auto model = std::make_shared<model::PuzzleCam>(backbone, 19, 4);
  checkpoint::initialise(*model, 1);
  model->to(device);
  training::TrainerOptions options;
  options.precision = model::choose_precision("auto", device);
  options.mean.assign(4, 0.5f);
  options.std.assign(4, 0.25f);
  training::Trainer trainer(model, options);
  const at::Tensor images = at::randn({batch, 4, crop, crop}).to(device), targets = at::rand({batch, 19}).gt(0.9).to(at::kFloat).to(device);
  return timed(device, [&] { trainer.step(images, targets, 3e-4); });
}

void print_operations(Task& task) {
  std::cout << ",\"ms_per_image\":{";
  for (int i = static_cast<int>(Op::GaussNoise); i <= static_cast<int>(Op::RandomBrightnessContrast); ++i) {
    const Op op = static_cast<Op>(i);
    std::cout << (op == Op::GaussNoise ? "" : ",") << "\"" << training::augment::op_name(op)
              << "\":" << task.seconds_of(op) * 1e3 / static_cast<double>(task.batch);
  }
  std::cout << "}";
}

}  // namespace

int cellcam::bench::augmentation(const std::vector<std::string>& arguments) {
  const auto argument = [&](std::size_t i, const char* otherwise) {
    return arguments.size() > i ? arguments[i] : std::string(otherwise);
  };
  const at::Device device = model::choose_device(argument(0, "auto"));
  const std::string backbone = argument(1, "seresnext50_32x4d");
  const std::int64_t batch = std::stoll(argument(2, "36")), crop = std::stoll(argument(3, "384"));
  g_seconds = std::stod(argument(4, "3"));
  Task task(device, batch, crop);
  const training::augment::Normalisation normalise(at::full({4}, 0.5f).to(device), at::full({4}, 0.25f).to(device));
  const double pass = timed(device, [&] { task.pass(normalise); });
  std::cout << "{\"device\":\"" << device.str() << "\",\"threads\":" << at::get_num_threads() << ",\"batch\":" << batch
            << ",\"crop\":" << crop << ",\"augmentation_ms\":" << pass * 1e3 << ",\"images_per_second\":" << static_cast<double>(batch) / pass;
  if (argument(5, "") == "operations") print_operations(task);
  if (backbone != "none") {
    const double step = step_seconds(device, backbone, batch, crop);
    std::cout << ",\"backbone\":\"" << backbone << "\",\"step_ms\":" << step * 1e3 << ",\"share_of_step\":" << pass / step;
  }
  std::cout << "}" << std::endl;
  return 0;
}
