#include "inference/predictor.h"

#ifdef __linux__
#include <malloc.h>
#endif

#include "binding/classes.h"
#include "binding/job.h"
#include "binding/one_thread.h"
#include "binding/values.h"
#include "error.h"

namespace cellcam::binding {

namespace {

// glibc keeps what a network's layers leave behind in each thread's pool; over hours of batches of different sizes that adds up.
void give_back_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

}  // namespace

class PredictorObject : public Napi::ObjectWrap<PredictorObject> {
 public:
  // (models, { precision, mean, std }): shares the models.
  explicit PredictorObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<PredictorObject>(info) {
    guarded(info.Env(), [&] {
      const auto list = info[0].As<Napi::Array>();
      std::vector<std::shared_ptr<model::PuzzleCam>> models;
      for (std::uint32_t i = 0; i < list.Length(); ++i) {
        shared_.push_back(model_of(list.Get(i)));
        models.push_back(shared_.back()->model);
      }
      const auto o = info[1].As<Napi::Object>();
      const model::Precision precision = model::choose_precision(text(o, "precision"), models.front()->device());
      predictor_ = std::make_shared<inference::Predictor>(models, precision, floats(o, "mean"), floats(o, "std"));
      thread_ = std::make_shared<OneThread>([predictor = predictor_] { predictor->cancel(); });
    });
  }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "Predictor",
                       {InstanceMethod("predict", &PredictorObject::predict), InstanceMethod("dispose", &PredictorObject::dispose)});
  }

 private:
  // (images {data: Uint8Array, shape (B, H, W, C)}, flips) to a promise of { logits, maps }; the images must stay as they are till then.
  Napi::Value predict(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      if (!predictor_) throw Error("ERR_DISPOSED", "the predictor was disposed");
      const at::Tensor images = tensor_view(info[0]);
      const bool flips = info[1].As<Napi::Boolean>();
      const auto data = info[0].As<Napi::Object>().Get("data").As<Napi::Object>();
      return run_job(
          info.Env(),
          [predictor = predictor_, thread = thread_, shared = shared_, images, flips]() -> Result {
            std::vector<std::unique_lock<std::mutex>> turns;
            for (const auto& model : shared) turns.push_back(model->take());
            const inference::Prediction p = thread->run([&] { return predictor->predict(images, flips); });
            give_back_memory();
            return [p](Napi::Env env) -> Napi::Value {
              auto out = Napi::Object::New(env);
              out.Set("logits", to_ndarray(env, p.logits));
              out.Set("maps", to_ndarray(env, p.maps));
              return out;
            };
          },
          {data});
    });
  }

  Napi::Value dispose(const Napi::CallbackInfo& info) {
    thread_.reset();
    predictor_.reset();
    shared_.clear();
    return info.Env().Undefined();
  }

  std::vector<std::shared_ptr<SharedModel>> shared_;
  std::shared_ptr<inference::Predictor> predictor_;
  std::shared_ptr<OneThread> thread_;
};

void init_predictor(Napi::Env env, Napi::Object exports) { exports.Set("Predictor", PredictorObject::define(env)); }

}  // namespace cellcam::binding
