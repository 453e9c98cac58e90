#include "training/trainer.h"

#include <ATen/Functions.h>

#include "binding/classes.h"
#include "binding/job.h"
#include "binding/running.h"
#include "binding/values.h"
#include "error.h"

namespace cellcam::binding {

namespace {

using training::EpochRequest;
using training::EpochTally;
using training::Progress;
using training::Trainer;

training::TrainerOptions trainer_options(const Napi::Object& o, c10::Device device) {
  training::TrainerOptions options;
  options.loss = {number(o, "alpha"), number(o, "beta"), number(o, "gamma")};
  options.precision = model::choose_precision(text(o, "precision"), device);
  options.adam = {number(o, "beta1"), number(o, "beta2"), number(o, "epsilon"), {}};
  const auto groups = o.Get("groups").As<Napi::Array>();
  for (std::uint32_t i = 0; i < groups.Length(); ++i) {
    const auto group = groups.Get(i).As<Napi::Object>();
    options.adam.groups.push_back({text(group, "prefix"), number(group, "factor")});
  }
  options.mean = floats(o, "mean");
  options.std = floats(o, "std");
  options.augmentation = augmentation(o.Get("augmentation").As<Napi::Object>());
  options.seed = seed(o, "seed");
  return options;
}

EpochRequest epoch_request(const Napi::Object& o) {
  EpochRequest r;
  r.train = boolean(o, "train");
  r.epoch = integer(o, "epoch");
  r.batch = integer(o, "batch");
  r.height = integer(o, "height");
  r.width = integer(o, "width");
  r.crop = integer(o, "crop");
  r.augment = boolean(o, "augment");
  r.targets = tensor_view(o.Get("targets")).clone();
  const at::Tensor rates = tensor_view(o.Get("learningRates"));
  r.learning_rates.assign(rates.data_ptr<double>(), rates.data_ptr<double>() + rates.numel());
  r.first_batch = integer(o, "firstBatch");
  r.report_every = integer(o, "reportEvery");
  return r;
}

std::optional<EpochTally> start_of(const Napi::Value& value) {
  if (!value.IsObject()) return std::nullopt;
  const auto o = value.As<Napi::Object>();
  return EpochTally{tensor_view(o.Get("sums")).clone(), tensor_view(o.Get("probabilities")).clone(), integer(o, "images"),
                    integer(o, "nextBatch"), boolean(o, "complete")};
}

Napi::Object to_js_tally(Napi::Env env, const EpochTally& tally) {
  auto out = Napi::Object::New(env);
  out.Set("sums", to_ndarray(env, tally.sums));
  out.Set("probabilities", to_ndarray(env, tally.probabilities));
  out.Set("images", static_cast<double>(tally.images));
  out.Set("nextBatch", static_cast<double>(tally.next_batch));
  out.Set("complete", tally.complete);
  return out;
}

Napi::Object to_js_progress(Napi::Env env, const Progress& p) {
  auto out = Napi::Object::New(env);
  out.Set("step", static_cast<double>(p.step));
  out.Set("steps", static_cast<double>(p.steps));
  out.Set("images", static_cast<double>(p.images));
  out.Set("loss", p.loss);
  return out;
}

// A training thread's messages, handled on the JavaScript thread.
using Message = std::function<void(Napi::Env)>;

struct Run {
  std::shared_ptr<SharedModel> model;
  std::shared_ptr<Trainer> trainer;
  std::shared_ptr<training::BatchQueue> queue;
  EpochRequest request;
  std::optional<EpochTally> start;
  Napi::ThreadSafeFunction messages;
  std::unique_ptr<RunningThread> thread;
};

// An environment that is taken down frees `messages`, so the thread that uses it must have ended before: hooks run in the
// reverse of the order in which they were added, and the function's own was there first.
void finish_run(void* run) { static_cast<Run*>(run)->thread->finish(); }

void post(const Napi::ThreadSafeFunction& messages, Message message) {
  auto* owned = new Message(std::move(message));
  const auto deliver = [](Napi::Env env, Napi::Function, Message* m) {
    const std::unique_ptr<Message> guard(m);
    if (env == nullptr) return;
    try {
      (*m)(env);
    } catch (const Napi::Error& e) {
      napi_fatal_exception(env, e.Value());  // does nothing in an environment that is being taken down
    }
  };
  if (messages.BlockingCall(owned, deliver) != napi_ok) delete owned;
}

}  // namespace

class TrainerObject : public Napi::ObjectWrap<TrainerObject> {
 public:
  // (model, options)
  explicit TrainerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TrainerObject>(info) {
    guarded(info.Env(), [&] {
      model_ = model_of(info[0]);
      trainer_ = std::make_shared<Trainer>(model_->model, trainer_options(info[1].As<Napi::Object>(), model_->model->device()));
    });
  }

  ~TrainerObject() override { release(); }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Trainer",
                       {InstanceMethod("runEpoch", &TrainerObject::run_epoch), InstanceMethod("step", &TrainerObject::step),
                        InstanceMethod("stop", &TrainerObject::stop),
                        InstanceMethod("optimiserState", &TrainerObject::optimiser_state),
                        InstanceMethod("loadOptimiserState", &TrainerObject::load_optimiser_state),
                        InstanceMethod("scalerState", &TrainerObject::scaler_state),
                        InstanceMethod("loadScalerState", &TrainerObject::load_scaler_state),
                        InstanceMethod("dispose", &TrainerObject::dispose)});
  }

 private:
  void release() {
    if (trainer_) trainer_->cancel();
    if (auto run = run_.lock(); run && run->thread) run->thread->finish();
    trainer_.reset();
    model_.reset();
  }

  Trainer& trainer() const {
    if (!trainer_) throw Error("ERR_DISPOSED", "the trainer was disposed");
    return *trainer_;
  }

  // (queue, request, start | null, onProgress) to a promise of the tally.
  Napi::Value run_epoch(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      trainer().clear_stop();
      bool idle = false;
      if (!model_->training.compare_exchange_strong(idle, true)) {
        throw Error("ERR_NATIVE", "the model is being trained already: one epoch at a time");
      }
      auto run = std::make_shared<Run>();
      run->model = model_;
      run->trainer = trainer_;
      try {
        run->queue = queue_of(info[0]);
        run->request = epoch_request(info[1].As<Napi::Object>());
        run->start = start_of(info[2]);
      } catch (...) {
        model_->training = false;
        throw;
      }
      run_ = run;
      return begin(info.Env(), run, info[3].As<Napi::Function>(), info.This().As<Napi::Object>());
    });
  }

  static Napi::Value begin(Napi::Env env, const std::shared_ptr<Run>& run, Napi::Function on_progress, Napi::Object self) {
    const auto deferred = Napi::Promise::Deferred::New(env);
    const auto progress = std::make_shared<Napi::FunctionReference>(Napi::Persistent(on_progress));
    const auto keep = std::make_shared<Napi::ObjectReference>(Napi::Persistent(self));  // no collection while it runs
    // Reset on this thread when the run ends; if the environment goes first, it takes the references with it.
    progress->SuppressDestruct();
    keep->SuppressDestruct();
    run->messages = Napi::ThreadSafeFunction::New(env, on_progress, "cellcam training", 0, 1);
    const auto settle = [run, deferred, progress, keep](const std::exception_ptr& error, const EpochTally& tally) {
      return [=](Napi::Env e) {
        run->thread->join();
        napi_remove_env_cleanup_hook(e, finish_run, run.get());
        run->thread.reset();
        progress->Reset();
        keep->Reset();
        error ? deferred.Reject(to_js_error(e, error).Value()) : deferred.Resolve(to_js_tally(e, tally));
      };
    };
    const auto report = [run, progress](const Progress& p) {
      post(run->messages, [p, progress](Napi::Env e) { progress->Call({to_js_progress(e, p)}); });
    };
    run->thread = std::make_unique<RunningThread>([run, settle, report] { train(*run, settle, report); },
                                                  [trainer = run->trainer, queue = run->queue] {
                                                    trainer->cancel();
                                                    queue->close();
                                                  });
    napi_add_env_cleanup_hook(env, finish_run, run.get());
    return deferred.Promise();
  }

  template <typename Settle, typename Report>
  static void train(Run& run, const Settle& settle, const Report& report) {
    std::exception_ptr error;
    EpochTally tally;
    {
      const std::unique_lock turn(run.model->turn);
      try {
        tally = run.trainer->run_epoch(*run.queue, run.request, std::move(run.start), report);
      } catch (...) {
        error = std::current_exception();
      }
      run.model->training = false;
    }
    const Napi::ThreadSafeFunction messages = run.messages;
    post(messages, settle(error, tally));
    Napi::ThreadSafeFunction(messages).Release();
  }

  // (images, targets, learningRate) to a promise of the losses.
  Napi::Value step(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      trainer();
      const at::Tensor images = tensor_view(info[0]).clone(), targets = tensor_view(info[1]).clone();
      const double rate = info[2].As<Napi::Number>().DoubleValue();
      return run_job(info.Env(), [trainer = trainer_, model = model_, images, targets, rate]() -> Result {
        const auto turn = model->take();
        const training::StepLosses loss = trainer->step(images, targets, rate);
        return [loss](Napi::Env env) -> Napi::Value {
          auto out = Napi::Object::New(env);
          out.Set("total", loss.total);
          out.Set("full", loss.full);
          out.Set("tiled", loss.tiled);
          out.Set("l1", loss.l1);
          return out;
        };
      });
    });
  }

  Napi::Value stop(const Napi::CallbackInfo& info) {
    if (trainer_) trainer_->request_stop();
    return info.Env().Undefined();
  }

  Napi::Value optimiser_state(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const auto turn = model_of_this().take();
      return to_js_tensors(info.Env(), trainer().optimiser_state());
    });
  }

  Napi::Value load_optimiser_state(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const auto turn = model_of_this().take();
      trainer().load_optimiser_state(from_js_tensors(info[0]));
      return info.Env().Undefined();
    });
  }

  Napi::Value scaler_state(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const training::GradScaler::State state = trainer().scaler_state();
      auto out = Napi::Object::New(info.Env());
      out.Set("scale", state.scale);
      out.Set("growthTracker", static_cast<double>(state.growth_tracker));
      return out;
    });
  }

  Napi::Value load_scaler_state(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      const auto o = info[0].As<Napi::Object>();
      trainer().load_scaler_state({number(o, "scale"), integer(o, "growthTracker")});
      return info.Env().Undefined();
    });
  }

  SharedModel& model_of_this() const {
    trainer();
    return *model_;
  }

  Napi::Value dispose(const Napi::CallbackInfo& info) {
    release();
    return info.Env().Undefined();
  }

  std::shared_ptr<SharedModel> model_;
  std::shared_ptr<Trainer> trainer_;
  std::weak_ptr<Run> run_;
};

void init_trainer(Napi::Env env, Napi::Object exports) { exports.Set("Trainer", TrainerObject::define(env)); }

}  // namespace cellcam::binding
