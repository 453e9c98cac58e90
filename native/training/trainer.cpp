#include "training/trainer.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include <cmath>

#include "error.h"
#include "model/memory_format.h"
#include "model/switches.h"
#include "training/augment/augment.h"
#include "training/augment/mix.h"

namespace cellcam::training {

namespace {

checkpoint::NamedTensors parameters_of(const model::PuzzleCam& model) {
  checkpoint::NamedTensors out;
  for (const auto& p : model.named_parameters()) out.emplace_back(p.key(), p.value());
  return out;
}

at::Tensor channel_values(const std::vector<float>& values, at::Device device) {
  return at::tensor(values, at::TensorOptions(at::kFloat)).to(device);
}

at::Tensor losses_of(const model::ComboLossValue& loss) {
  return at::stack({loss.total, loss.full, loss.tiled, loss.l1}).detach().to(at::kDouble);
}

at::Tensor probabilities_of(const model::PuzzleOutput& output) { return output.logits.detach().sigmoid(); }

at::TensorOptions rate_options(at::Device device) {
  return at::TensorOptions().device(device).dtype(device.is_cuda() ? at::kFloat : at::kDouble);
}

}  // namespace

Trainer::Trainer(std::shared_ptr<model::PuzzleCam> model, TrainerOptions options)
    : model_(model::in_fastest_format(std::move(model), options.precision, /*training=*/true)),
      options_(std::move(options)),
      adam_(parameters_of(*model_), options_.adam),
      scaler_(model_->device(), options_.scaler),
      normalise_(channel_values(options_.mean, model_->device()), channel_values(options_.std, model_->device())),
      recorded_(model_->device()),
      learning_rate_(at::zeros({}, rate_options(model_->device()))) {
  if (!model_->device().is_cuda()) return;
  copy_ = std::make_unique<DeviceCopy>(model_->device());
  if (model::switched_on("CELLCAM_PREPARE_AHEAD")) ahead_ = std::make_unique<SideStream>(model_->device());
}

Trainer::Pass Trainer::forward(const at::Tensor& images, const at::Tensor& targets) {
  Pass pass;
  {
    const model::Autocast autocast(model_->device(), options_.precision);
    const bool tiled = options_.loss.beta > 0 || options_.loss.gamma > 0;
    pass.output = model_->forward(images, tiled);
  }
  pass.loss = model::combo_loss(pass.output, targets, options_.loss);
  return pass;
}

void Trainer::optimise(const at::Tensor& loss, const at::Tensor& learning_rate) {
  adam_.zero_grad();
  if (options_.precision != model::Precision::fp16) {
    {
      const Adam::Early early(adam_, learning_rate);
      loss.backward();
    }
    adam_.step(learning_rate);
    return;
  }
  scaler_.scale(loss).backward();
  std::vector<at::Tensor> gradients = adam_.gradients();
  const at::Tensor found_inf = scaler_.found_inf(gradients);
  adam_.step(learning_rate, Adam::Scaled{scaler_.scale_tensor(), found_inf});
  scaler_.update(found_inf);
}

Trainer::Result Trainer::validate_on(const at::Tensor& images, const at::Tensor& targets) {
  const at::NoGradGuard no_grad;
  const Pass pass = forward(images, targets);
  return {losses_of(pass.loss), probabilities_of(pass.output)};
}

Trainer::Result Trainer::train_on(const at::Tensor& images, const at::Tensor& targets, double learning_rate, std::uint64_t seed) {
  if (model_->dropout() > 0) {
    at::Generator generator = at::globalContext().defaultGenerator(model_->device());
    const std::lock_guard lock(generator.mutex());
    generator.set_current_seed(seed);
  }
  learning_rate_.fill_(learning_rate);
  const at::AutoGradMode grad(true);
  const model::Recorded::Tensors out =
      recorded_(parameters_key(), {images, targets, learning_rate_}, [this](const model::Recorded::Tensors& inputs) -> model::Recorded::Tensors {
        const Pass pass = forward(inputs[0], inputs[1]);
        optimise(pass.loss.total, inputs[2]);
        return {losses_of(pass.loss), probabilities_of(pass.output)};
      });
  if (model_->device().is_cuda()) bump_versions();
  return {out[0], out[1]};
}

// A replay changes tensors behind LibTorch's back, and what was made of them is known to be stale by their versions.
void Trainer::bump_versions() {
  for (const at::Tensor& t : model_->parameters()) t.unsafeGetTensorImpl()->bump_version();
  for (const at::Tensor& t : model_->buffers()) t.unsafeGetTensorImpl()->bump_version();
}

std::vector<std::int64_t> Trainer::parameters_key() const {
  std::vector<std::int64_t> key;
  for (const at::Tensor& p : model_->parameters()) {
    key.push_back(reinterpret_cast<std::intptr_t>(p.const_data_ptr()));
    key.push_back(p.requires_grad());
  }
  return key;
}

StepLosses Trainer::step(const at::Tensor& images, const at::Tensor& targets, double learning_rate) {
  const model::CancellationScope scope(cancel_);
  model_->train();
  const at::Device device = model_->device();
  const std::uint64_t seed = augment::image_seed(options_.seed, 0, single_steps_++);
  const at::Tensor losses = train_on(images.to(device), targets.to(device), learning_rate, seed).losses.cpu();
  const double* v = losses.data_ptr<double>();
  return {v[0], v[1], v[2], v[3]};
}

std::pair<at::Tensor, at::Tensor> Trainer::prepare(const at::Tensor& slot, const at::Tensor& targets,
                                                   const EpochRequest& request, std::int64_t first_image) {
  if (!ahead_) return prepare_now(slot, targets, request, first_image);
  return ahead_->run([&] { return prepare_now(slot, targets, request, first_image); });
}

std::pair<at::Tensor, at::Tensor> Trainer::prepare_now(const at::Tensor& slot, const at::Tensor& targets,
                                                       const EpochRequest& request, std::int64_t first_image) {
  const at::Tensor images = copy_ ? copy_->copy(slot) : slot;
  if (!request.train) return {normalise_(images), targets};
  augment::Options options = options_.augmentation;
  if (!request.augment) options = {augment::Level::none};
  std::vector<augment::Recipe> recipes;
  std::vector<augment::Mix> mixes;
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    const std::uint64_t seed = augment::image_seed(options_.seed, request.epoch, first_image + i);
    recipes.push_back(augment::draw(seed, request.height, request.width, {request.crop, request.crop}, images.size(3), options));
    mixes.push_back(augment::draw_mix(seed, request.crop, request.crop, options));
  }
  const at::Tensor pixels = augment::prepare(images, recipes, normalise_, input_memory_);
  if (options.mixup + options.cutmix <= 0) return {pixels, targets};
  return augment::mixed(pixels, targets.to(at::kFloat), mixes, first_image);
}

// The state of one run_epoch call.
class Trainer::Epoch {
 public:
  Epoch(Trainer& trainer, BatchQueue& queue, const EpochRequest& request, std::optional<EpochTally> start)
      : trainer_(trainer), queue_(queue), request_(request), device_(trainer.model_->device()) {
    const at::TensorOptions on_device = at::TensorOptions().device(device_);
    const std::int64_t n = request.targets.size(0);
    images_total_ = n;
    sums_ = at::zeros({4}, on_device.dtype(at::kDouble));
    probabilities_ = at::zeros({n, request.targets.size(1)}, on_device.dtype(at::kFloat));
    targets_ = request.targets.to(device_);
    if (start) {
      sums_.copy_(start->sums);
      probabilities_.copy_(start->probabilities);
      images_ = start->images;
    }
    if (trainer.ahead_) trainer.ahead_->follow();
    next_batch_ = request.first_batch;
  }

  // False when the queue has ended.
  bool step() {
    const std::optional<Lease> lease = queue_.take();
    if (!lease) return false;
    const std::int64_t first = lease->batch * request_.batch;
    const std::int64_t count = std::min(request_.batch, images_total_ - first);
    const auto [images, targets] = read(*lease, first, count);
    const Result result = run(images, targets, lease->batch);
    sums_.add_(result.losses, static_cast<double>(count));
    probabilities_.narrow(0, first, count).copy_(result.probabilities);
    images_ += count;
    next_batch_ = lease->batch + 1;
    return true;
  }

  bool reports_now() const {
    return next_batch_ % request_.report_every == 0 || next_batch_ == steps();
  }

  Progress progress() const {
    const double loss = sums_.select(0, 0).item<double>() / static_cast<double>(images_);
    if (!std::isfinite(loss)) {
      throw Error("ERR_TRAINING", "the loss is not a finite number in epoch " + std::to_string(request_.epoch) +
                                      ", by step " + std::to_string(next_batch_) +
                                      ": try a lower learning rate, or precision fp32");
    }
    return {next_batch_, steps(), images_, loss};
  }

  EpochTally tally() const {
    return {sums_.cpu(), probabilities_.cpu(), images_, next_batch_, next_batch_ == steps()};
  }

 private:
  std::int64_t steps() const { return (images_total_ + request_.batch - 1) / request_.batch; }

  // The slot is given back as soon as its pixels have been read.
  std::pair<at::Tensor, at::Tensor> read(const Lease& lease, std::int64_t first, std::int64_t count) {
    struct Release {
      BatchQueue& queue;
      const Lease& lease;
      ~Release() { queue.release(lease); }
    } const release{queue_, lease};
    const auto channels = static_cast<std::int64_t>(trainer_.options_.mean.size());
    const at::Tensor slot = at::from_blob(queue_.slot(lease), {count, request_.height, request_.width, channels}, at::kByte);
    return trainer_.prepare(slot, targets_.narrow(0, first, count), request_, first);
  }

  Result run(const at::Tensor& images, const at::Tensor& targets, std::int64_t batch) {
    if (!request_.train) return trainer_.validate_on(images, targets);
    const std::uint64_t seed = augment::image_seed(trainer_.options_.seed, request_.epoch, batch * request_.batch);
    return trainer_.train_on(images, targets, request_.learning_rates.at(static_cast<std::size_t>(batch)), seed);
  }

  Trainer& trainer_;
  BatchQueue& queue_;
  const EpochRequest& request_;
  at::Device device_;
  at::Tensor sums_, probabilities_, targets_;
  std::int64_t images_total_ = 0, images_ = 0, next_batch_ = 0;
};

EpochTally Trainer::run_epoch(BatchQueue& queue, const EpochRequest& request, std::optional<EpochTally> start,
                              const std::function<void(const Progress&)>& report) {
  const model::CancellationScope scope(cancel_);
  model_->train(request.train);
  Epoch epoch(*this, queue, request, std::move(start));
  while (!stop_ && epoch.step()) {
    if (epoch.reports_now()) report(epoch.progress());
  }
  EpochTally tally = epoch.tally();
  // Validation needs its memory, and cuDNN's plans in it end with this thread.
  recorded_.forget();
  return tally;
}

}  // namespace cellcam::training
