#pragma once
#include <napi.h>

#include <atomic>
#include <memory>
#include <mutex>

#include "model/puzzle_cam.h"
#include "training/augment/sampler.h"
#include "training/batch_queue.h"

namespace cellcam::binding {

// A model and who may use it: short jobs take turns; a training run has it for itself.
struct SharedModel {
  std::shared_ptr<model::PuzzleCam> model;
  std::mutex turn;
  std::atomic<bool> training{false};

  // A turn for a short job. Throws Error while a training run has the model.
  std::unique_lock<std::mutex> take();
};

// The model behind a JavaScript PuzzleCam, the queue behind a BatchQueue. Throw ERR_DISPOSED after dispose().
std::shared_ptr<SharedModel> model_of(const Napi::Value& value);
std::shared_ptr<training::BatchQueue> queue_of(const Napi::Value& value);

// { level, resizedCrop, channelDropout, mixup, cutmix, mixAlpha }
training::augment::Options augmentation(const Napi::Object& o);

// Each registers its class or functions on the addon's exports.
void init_image(Napi::Env env, Napi::Object exports);
void init_combo_loss(Napi::Env env, Napi::Object exports);
void init_puzzle_cam(Napi::Env env, Napi::Object exports);
void init_augment(Napi::Env env, Napi::Object exports);
void init_batch_queue(Napi::Env env, Napi::Object exports);
void init_trainer(Napi::Env env, Napi::Object exports);
void init_predictor(Napi::Env env, Napi::Object exports);
void init_cells(Napi::Env env, Napi::Object exports);

}  // namespace cellcam::binding
