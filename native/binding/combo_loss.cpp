#include "model/combo_loss.h"

#include <ATen/Functions.h>
#include <ATen/core/grad_mode.h>

#include "binding/classes.h"
#include "binding/job.h"
#include "binding/values.h"

namespace cellcam::binding {

namespace {

at::Tensor leaf(const Napi::Object& output, const char* name) {
  const Napi::Value value = output.Get(name);
  return value.IsUndefined() ? at::Tensor() : tensor_view(value).clone().requires_grad_(true);
}

at::Tensor gradient_of(const at::Tensor& t) { return t.grad().defined() ? t.grad() : at::zeros_like(t); }

Napi::Object gradients(Napi::Env env, const model::PuzzleOutput& output) {
  auto out = Napi::Object::New(env);
  const auto set = [&](const char* name, const at::Tensor& t) {
    if (t.defined()) out.Set(name, to_ndarray(env, gradient_of(t)));
  };
  set("logits", output.logits);
  set("maps", output.maps);
  set("tiledLogits", output.tiled_logits);
  set("tiledMaps", output.tiled_maps);
  return out;
}

// (output, targets, { alpha, beta, gamma }) to a promise of { total, full, tiled, l1, gradients }.
Napi::Value combo_loss(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto given = info[0].As<Napi::Object>();
    const model::PuzzleOutput output{leaf(given, "logits"), leaf(given, "maps"), leaf(given, "tiledLogits"),
                                     leaf(given, "tiledMaps")};
    const at::Tensor targets = tensor_view(info[1]).clone();
    const auto o = info[2].As<Napi::Object>();
    const model::ComboLossOptions options{number(o, "alpha"), number(o, "beta"), number(o, "gamma")};
    return run_job(info.Env(), [=]() -> Result {
      const at::AutoGradMode grad(true);
      const model::ComboLossValue loss = model::combo_loss(output, targets, options);
      if (loss.total.requires_grad()) loss.total.backward();
      return [=](Napi::Env env) -> Napi::Value {
        auto out = Napi::Object::New(env);
        out.Set("total", loss.total.item<double>());
        out.Set("full", loss.full.item<double>());
        out.Set("tiled", loss.tiled.item<double>());
        out.Set("l1", loss.l1.item<double>());
        out.Set("gradients", gradients(env, output));
        return out;
      };
    });
  });
}

}  // namespace

void init_combo_loss(Napi::Env env, Napi::Object exports) {
  exports.Set("comboLoss", Napi::Function::New(env, combo_loss));
}

}  // namespace cellcam::binding
