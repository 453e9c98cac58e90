#include "training/augment/augment.h"

#include <ATen/Functions.h>

#include "binding/classes.h"
#include "binding/job.h"
#include "binding/values.h"
#include "error.h"
#include "model/precision.h"
#include "training/augment/sampler.h"

namespace cellcam::binding {

namespace {

using namespace training::augment;

// Options cross as { level, resizedCrop [from, to], channelDropout, mixup, cutmix, mixAlpha }.
Level level_of(const std::string& name) { return name == "full" ? Level::full : name == "flips" ? Level::flips : Level::none; }

Napi::Object to_js(Napi::Env env, const Operation& operation) {
  auto values = Napi::Float64Array::New(env, operation.values.size());
  std::copy(operation.values.begin(), operation.values.end(), values.Data());
  auto out = Napi::Object::New(env);
  out.Set("op", op_name(operation.op));
  out.Set("values", values);
  return out;
}

// (seed, [height, width], [crop height, crop width], channels, options) to [{ op, values }].
Napi::Value sample_augmentation(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    bool lossless = false;
    const std::uint64_t seed = info[0].As<Napi::BigInt>().Uint64Value(&lossless);
    const auto pair = [](const Napi::Value& v) -> std::array<std::int64_t, 2> {
      const auto list = v.As<Napi::Array>();
      return {list.Get(0u).As<Napi::Number>().Int64Value(), list.Get(1u).As<Napi::Number>().Int64Value()};
    };
    const auto size = pair(info[1]);
    const Recipe recipe = draw(seed, size[0], size[1], pair(info[2]), info[3].As<Napi::Number>().Int64Value(),
                               augmentation(info[4].As<Napi::Object>()));
    auto out = Napi::Array::New(info.Env());
    for (const Operation& operation : recipe) out.Set(out.Length(), to_js(info.Env(), operation));
    return out;
  });
}

// One step of a chain: { op, values, noise: { data, shape } | null }, the noise with one image or one an image of the batch.
struct Step {
  Operation operation;
  at::Tensor noise;

  // What it is for image b: noise of its own.
  Operation of_image(std::int64_t b) const {
    Operation o = operation;
    if (noise.defined()) o.given = noise.select(0, b % noise.size(0)).contiguous();
    const bool seeded = o.op == Op::GaussNoise || o.op == Op::IAAAdditiveGaussianNoise;
    if (seeded) o.values[1] += static_cast<double>(b);
    if (o.op == Op::ElasticTransform) o.values[2] += static_cast<double>(b);
    return o;
  }
};

std::vector<Step> steps_of(const Napi::Array& list) {
  std::vector<Step> steps;
  for (std::uint32_t i = 0; i < list.Length(); ++i) {
    const auto o = list.Get(i).As<Napi::Object>();
    const auto values = o.Get("values").As<Napi::Float64Array>();
    Step step{{find_op(text(o, "op")), {values.Data(), values.Data() + values.ElementLength()}, {}}, {}};
    if (o.Get("noise").IsObject()) step.noise = tensor_view(o.Get("noise")).clone();
    steps.push_back(std::move(step));
  }
  return steps;
}

// A recipe takes steps as long as their stages ascend.
at::Tensor run_chain(at::Tensor images, const std::vector<Step>& steps, bool by_tensors) {
  for (std::size_t first = 0; first < steps.size();) {
    std::size_t end = first + 1;
    while (end < steps.size() && stage_of(steps[end].operation.op) > stage_of(steps[end - 1].operation.op)) ++end;
    std::vector<Recipe> recipes(static_cast<std::size_t>(images.size(0)));
    for (std::size_t b = 0; b < recipes.size(); ++b) {
      for (std::size_t i = first; i < end; ++i) recipes[b].push_back(steps[i].of_image(static_cast<std::int64_t>(b)));
    }
    images = by_tensors ? apply_by_tensors(images, recipes) : training::augment::apply(images, recipes);
    first = end;
  }
  return images;
}

// (images, steps, device, byTensors) to a promise of the images.
Napi::Value augment_with(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const at::Tensor images = tensor_view(info[0]).clone();
    const std::vector<Step> steps = steps_of(info[1].As<Napi::Array>());
    const c10::Device device = model::choose_device(info[2].As<Napi::String>());
    const bool by_tensors = info[3].As<Napi::Boolean>();
    return run_job(info.Env(), [images, steps, device, by_tensors]() -> Result {
      const at::Tensor out = run_chain(images.to(device), steps, by_tensors).cpu().contiguous();
      return [out](Napi::Env env) -> Napi::Value { return to_ndarray(env, out); };
    });
  });
}

}  // namespace

training::augment::Options augmentation(const Napi::Object& o) {
  const auto crop = o.Get("resizedCrop").As<Napi::Array>();
  Options options;
  options.level = level_of(text(o, "level"));
  options.resized_crop = {crop.Get(0u).As<Napi::Number>().DoubleValue(), crop.Get(1u).As<Napi::Number>().DoubleValue()};
  options.channel_dropout = number(o, "channelDropout");
  options.mixup = number(o, "mixup");
  options.cutmix = number(o, "cutmix");
  options.mix_alpha = number(o, "mixAlpha");
  return options;
}

void init_augment(Napi::Env env, Napi::Object exports) {
  exports.Set("sampleAugmentation", Napi::Function::New(env, sample_augmentation));
  exports.Set("augmentWith", Napi::Function::New(env, augment_with));
}

}  // namespace cellcam::binding
