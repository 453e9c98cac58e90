#include "model/puzzle_cam.h"

#include <ATen/core/grad_mode.h>

#include "binding/classes.h"
#include "binding/job.h"
#include "binding/values.h"
#include "checkpoint/init.h"
#include "error.h"
#include "model/combo_loss.h"
#include "model/precision.h"

namespace cellcam::binding {

std::unique_lock<std::mutex> SharedModel::take() {
  if (training) throw Error("ERR_NATIVE", "the model is being trained: wait until the epoch has ended");
  return std::unique_lock(turn);
}

namespace {

Napi::Object to_js_output(Napi::Env env, const model::PuzzleOutput& output) {
  auto out = Napi::Object::New(env);
  out.Set("logits", to_ndarray(env, output.logits));
  out.Set("maps", to_ndarray(env, output.maps));
  if (output.tiled_maps.defined()) {
    out.Set("tiledLogits", to_ndarray(env, output.tiled_logits));
    out.Set("tiledMaps", to_ndarray(env, output.tiled_maps));
  }
  return out;
}

struct Lesson {
  model::PuzzleOutput output;
  model::ComboLossValue loss;
  std::vector<std::pair<std::string, at::Tensor>> gradients;
};

// Gradients of every parameter; the model's own stay as they were.
Lesson study(model::PuzzleCam& m, const at::Tensor& images, const at::Tensor& targets,
             const model::ComboLossOptions& options, model::Precision precision) {
  const at::AutoGradMode grad(true);
  Lesson lesson;
  for (at::Tensor& p : m.parameters()) p.mutable_grad() = at::Tensor();
  {
    const model::Autocast autocast(m.device(), precision);
    lesson.output = m.forward(images.to(m.device()), options.beta > 0 || options.gamma > 0);
  }
  lesson.loss = model::combo_loss(lesson.output, targets.to(m.device()), options);
  lesson.loss.total.backward();
  for (auto& p : m.named_parameters()) {
    lesson.gradients.emplace_back(p.key(), p.value().grad().defined() ? p.value().grad() : at::zeros_like(p.value()));
    p.value().mutable_grad() = at::Tensor();
  }
  return lesson;
}

Napi::Object to_js_lesson(Napi::Env env, const Lesson& lesson) {
  auto loss = Napi::Object::New(env);
  loss.Set("total", lesson.loss.total.item<double>());
  loss.Set("full", lesson.loss.full.item<double>());
  loss.Set("tiled", lesson.loss.tiled.item<double>());
  loss.Set("l1", lesson.loss.l1.item<double>());
  auto gradients = Napi::Object::New(env);
  for (const auto& [name, gradient] : lesson.gradients) gradients.Set(name, to_ndarray(env, gradient));
  auto out = Napi::Object::New(env);
  out.Set("loss", loss);
  out.Set("output", to_js_output(env, lesson.output));
  out.Set("gradients", gradients);
  return out;
}

}  // namespace

class PuzzleCamObject : public Napi::ObjectWrap<PuzzleCamObject> {
 public:
  // (backbone, classes, channels, device, dropout): an empty model; TypeScript then calls initialise or assign.
  explicit PuzzleCamObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PuzzleCamObject>(info) {
    guarded(info.Env(), [&] {
      const c10::Device device = model::choose_device(info[3].As<Napi::String>());
      shared_ = std::make_shared<SharedModel>();
      shared_->model = std::make_shared<model::PuzzleCam>(info[0].As<Napi::String>(), info[1].As<Napi::Number>().Int64Value(),
                                                          info[2].As<Napi::Number>().Int64Value(),
                                                          info[4].As<Napi::Number>().DoubleValue());
      shared_->model->move_to(device);
      for (const auto& [name, t] : checkpoint::state_dict(*shared_->model)) bytes_ += static_cast<std::int64_t>(t.nbytes());
      Napi::MemoryManagement::AdjustExternalMemory(info.Env(), bytes_);
    });
  }

  void Finalize(Napi::Env env) override { release(env); }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "PuzzleCam",
                       {InstanceMethod("initialise", &PuzzleCamObject::initialise),
                        InstanceMethod("parameters", &PuzzleCamObject::parameters),
                        InstanceMethod("tensors", &PuzzleCamObject::tensors),
                        InstanceMethod("assign", &PuzzleCamObject::assign),
                        InstanceMethod("setTrainable", &PuzzleCamObject::set_trainable),
                        InstanceMethod("forward", &PuzzleCamObject::forward),
                        InstanceMethod("gradients", &PuzzleCamObject::gradients),
                        InstanceMethod("dispose", &PuzzleCamObject::dispose)});
  }

  const std::shared_ptr<SharedModel>& shared() const {
    if (!shared_) throw Error("ERR_DISPOSED", "the model was disposed");
    return shared_;
  }

 private:
  void release(Napi::Env env) {
    if (!shared_) return;
    shared_.reset();
    Napi::MemoryManagement::AdjustExternalMemory(env, -bytes_);
  }

  template <typename Work>
  Napi::Value job(const Napi::CallbackInfo& info, Work&& work) {
    return run_job(info.Env(), [shared = shared(), work = std::forward<Work>(work)]() -> Result {
      const auto turn = shared->take();
      return work(*shared->model);
    });
  }

  // (seed)
  Napi::Value initialise(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      bool lossless = false;
      const std::uint64_t seed = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
      return job(info, [seed](model::PuzzleCam& m) -> Result {
        checkpoint::initialise(m, seed);
        return [](Napi::Env env) -> Napi::Value { return env.Undefined(); };
      });
    });
  }

  Napi::Value parameters(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const Napi::Env env = info.Env();
      auto list = Napi::Array::New(env);
      for (const auto& p : shared()->model->named_parameters()) {
        auto entry = Napi::Object::New(env);
        entry.Set("name", p.key());
        entry.Set("shape", to_js_shape(env, p.value().sizes()));
        entry.Set("dtype", dtype_name(p.value().scalar_type()));
        entry.Set("trainable", p.value().requires_grad());
        list.Set(list.Length(), entry);
      }
      return list;
    });
  }

  // The whole state: parameters and buffers.
  Napi::Value tensors(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const auto turn = shared()->take();
      return to_js_tensors(info.Env(), checkpoint::state_dict(*shared()->model));
    });
  }

  // (tensors): strict.
  Napi::Value assign(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      return job(info, [tensors = from_js_tensors(info[0])](model::PuzzleCam& m) -> Result {
        checkpoint::load_state_dict(m, tensors);
        return [](Napi::Env env) -> Napi::Value { return env.Undefined(); };
      });
    });
  }

  // (prefix, trainable) to the number of parameters.
  Napi::Value set_trainable(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const auto turn = shared()->take();
      const std::int64_t found = shared()->model->set_trainable(info[0].As<Napi::String>(), info[1].As<Napi::Boolean>());
      return Napi::Number::New(info.Env(), static_cast<double>(found));
    });
  }

  // (images, { tiled, train, precision })
  Napi::Value forward(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      const auto o = info[1].As<Napi::Object>();
      const bool tiled = boolean(o, "tiled"), train = boolean(o, "train");
      const model::Precision precision = model::choose_precision(text(o, "precision"), shared()->model->device());
      return job(info, [=, images = tensor_view(info[0]).clone()](model::PuzzleCam& m) -> Result {
        const at::NoGradGuard no_grad;
        const model::Autocast autocast(m.device(), precision);
        m.train(train);
        const model::PuzzleOutput output = m.forward(images.to(m.device()), tiled);
        return [output](Napi::Env env) -> Napi::Value { return to_js_output(env, output); };
      });
    });
  }

  // (images, targets, { train, precision, alpha, beta, gamma })
  Napi::Value gradients(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&] {
      const auto o = info[2].As<Napi::Object>();
      const bool train = boolean(o, "train");
      const model::Precision precision = model::choose_precision(text(o, "precision"), shared()->model->device());
      const model::ComboLossOptions loss{number(o, "alpha"), number(o, "beta"), number(o, "gamma")};
      const at::Tensor images = tensor_view(info[0]).clone(), targets = tensor_view(info[1]).clone();
      return job(info, [=](model::PuzzleCam& m) -> Result {
        m.train(train);
        const Lesson lesson = study(m, images, targets, loss, precision);
        return [lesson](Napi::Env env) -> Napi::Value { return to_js_lesson(env, lesson); };
      });
    });
  }

  Napi::Value dispose(const Napi::CallbackInfo& info) {
    release(info.Env());
    return info.Env().Undefined();
  }

  std::shared_ptr<SharedModel> shared_;
  std::int64_t bytes_ = 0;
};

std::shared_ptr<SharedModel> model_of(const Napi::Value& value) {
  return PuzzleCamObject::Unwrap(value.As<Napi::Object>())->shared();
}

void init_puzzle_cam(Napi::Env env, Napi::Object exports) { exports.Set("PuzzleCam", PuzzleCamObject::define(env)); }

}  // namespace cellcam::binding
