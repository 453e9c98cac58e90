#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "model/block_cache.h"
#include "model/cancellation.h"
#include "model/combo_loss.h"
#include "model/precision.h"
#include "model/puzzle_cam.h"
#include "model/recorded.h"
#include "training/adam.h"
#include "training/augment/augment.h"
#include "training/augment/sampler.h"
#include "training/batch_queue.h"
#include "training/device_copy.h"
#include "training/grad_scaler.h"
#include "training/side_stream.h"

namespace cellcam::training {

struct TrainerOptions {
  model::ComboLossOptions loss;
  model::Precision precision = model::Precision::fp32;
  AdamOptions adam;
  GradScaler::Options scaler;
  std::vector<float> mean, std;  // per channel, of values in [0, 1]
  augment::Options augmentation;
  std::uint64_t seed = 0;  // of the augmentation
};

// One pass over images that come through a BatchQueue as (B, height, width, C) uint8 slots.
struct EpochRequest {
  bool train = true;
  std::int64_t epoch = 1;
  std::int64_t batch = 1, height = 0, width = 0;
  std::int64_t crop = 0;                // side of the square that training sees; validation sees whole images
  bool augment = true;                  // training only; the crop is always taken
  at::Tensor targets;                   // (n, K) uint8 on the CPU, in the order of the epoch
  std::vector<double> learning_rates;   // one a step (training only)
  std::int64_t first_batch = 0;         // > 0 when an interrupted epoch goes on
  std::int64_t report_every = 20;       // steps between reports; reading the loss waits for the device
};

// Sums over the images seen so far, so that an interrupted epoch can go on; the means are the epoch's figures.
struct EpochTally {
  at::Tensor sums;           // (4) float64 on the CPU: total, full, tiled, l1, each times the batch's images
  at::Tensor probabilities;  // (n, K) float32 on the CPU, in the order of the epoch
  std::int64_t images = 0;
  std::int64_t next_batch = 0;
  bool complete = false;
};

struct Progress {
  std::int64_t step, steps, images;
  double loss;  // mean of the epoch so far
};

struct StepLosses {
  double total, full, tiled, l1;
};

// The training loop: owns the optimiser and the loss scaler of one model. One thread at a time may run it; request_stop and
// cancel may be called from any thread.
class Trainer {
 public:
  Trainer(std::shared_ptr<model::PuzzleCam> model, TrainerOptions options);

  // Runs until the queue ends, or stops after the step in hand when asked to. `start` continues an interrupted epoch.
  // Throws what the queue's producers failed with, and Error ERR_TRAINING for a loss that is not a number.
  EpochTally run_epoch(BatchQueue& queue, const EpochRequest& request, std::optional<EpochTally> start,
                       const std::function<void(const Progress&)>& report);

  // One optimiser step on a normalised batch (B, C, H, W) float32 with targets (B, K). One that fails midway may have moved part of
  // the parameters.
  StepLosses step(const at::Tensor& images, const at::Tensor& targets, double learning_rate);

  void request_stop() { stop_ = true; }          // at the end of the step
  void cancel() { stop_ = true, cancel_ = true; }  // within a block's time; the model is then unusable
  void clear_stop() { stop_ = false; }

  checkpoint::NamedTensors optimiser_state() const { return adam_.state(); }
  void load_optimiser_state(const checkpoint::NamedTensors& state) { adam_.load(state); }
  GradScaler::State scaler_state() const { return scaler_.state(); }
  void load_scaler_state(const GradScaler::State& state) { scaler_.load(state); }
  const std::shared_ptr<model::PuzzleCam>& model() const { return model_; }
  model::Precision precision() const { return options_.precision; }

 private:
  struct Pass {
    model::PuzzleOutput output;
    model::ComboLossValue loss;
  };
  // What a batch leaves behind on the device.
  struct Result {
    at::Tensor losses;         // (4) float64: total, full, tiled, l1
    at::Tensor probabilities;  // (B, K) float32
  };
  class Epoch;

  Pass forward(const at::Tensor& images, const at::Tensor& targets);
  Result validate_on(const at::Tensor& images, const at::Tensor& targets);
  // `seed` is what dropout draws from. The result holds until the next step.
  Result train_on(const at::Tensor& images, const at::Tensor& targets, double learning_rate, std::uint64_t seed);
  void optimise(const at::Tensor& loss, const at::Tensor& learning_rate);
  // What decides which operations a step runs: a recording of it holds only as long as this stays.
  std::vector<std::int64_t> parameters_key() const;
  void bump_versions();
  // A slot's images to the device, augmented (training only) and normalised, with their targets, which mixing changes. On CUDA while
  // earlier steps still run.
  std::pair<at::Tensor, at::Tensor> prepare(const at::Tensor& slot, const at::Tensor& targets, const EpochRequest& request,
                                            std::int64_t first_image);
  std::pair<at::Tensor, at::Tensor> prepare_now(const at::Tensor& slot, const at::Tensor& targets, const EpochRequest& request,
                                                std::int64_t first_image);

  model::BlockCache blocks_;
  std::shared_ptr<model::PuzzleCam> model_;
  TrainerOptions options_;
  Adam adam_;
  GradScaler scaler_;
  augment::Normalisation normalise_;
  model::Recorded recorded_;
  at::Tensor learning_rate_;  // a scalar: float32 on a CUDA device, where a recorded step reads it, else float64
  at::Tensor input_memory_;  // of the last training batch, for the next
  std::int64_t single_steps_ = 0;  // how often step() was called
  std::unique_ptr<DeviceCopy> copy_;   // CUDA only
  std::unique_ptr<SideStream> ahead_;  // CUDA only; CELLCAM_PREPARE_AHEAD=0 leaves it out
  std::atomic<bool> stop_{false};
  model::CancelFlag cancel_{false};
};

}  // namespace cellcam::training
