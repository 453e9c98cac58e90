#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <napi.h>
#include <torch/cuda.h>
#include <torch/version.h>

#include <cstdlib>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "binding/classes.h"
#include "binding/job.h"
#include "binding/running.h"
#include "binding/values.h"
#include "model/backbones/backbone.h"
#include "model/precision.h"

namespace cellcam::binding {

namespace {

Napi::Value describe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto devices = Napi::Array::New(env);
  devices.Set(0u, "cpu");
  const bool cuda = torch::cuda::is_available();
  const auto gpus = cuda ? static_cast<std::uint32_t>(torch::cuda::device_count()) : 0;
  for (std::uint32_t i = 0; i < gpus; ++i) devices.Set(i + 1, "cuda:" + std::to_string(i));
  auto out = Napi::Object::New(env);
  out.Set("torch", TORCH_VERSION);
  out.Set("cuda", cuda);
  out.Set("devices", devices);
  out.Set("cpuPrecision", model::precision_name(model::choose_precision("auto", c10::kCPU)));
  out.Set("threads", at::get_num_threads());
  return out;
}

Napi::Value list_backbones(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  auto list = Napi::Array::New(env);
  for (const model::BackboneInfo& known : model::backbones()) {
    auto entry = Napi::Object::New(env);
    entry.Set("name", known.name);
    entry.Set("outChannels", static_cast<double>(known.out_channels));
    entry.Set("outputStride", static_cast<double>(known.output_stride));
    entry.Set("stem", known.stem);
    entry.Set("pretrained", known.pretrained);
    list.Set(list.Length(), entry);
  }
  return list;
}

// (backbone, batch, size) to a promise of { parameters, trainingBytes }.
Napi::Value training_memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const model::BackboneInfo& known = model::find_backbone(info[0].As<Napi::String>());
    const std::int64_t batch = info[1].As<Napi::Number>().Int64Value(), size = info[2].As<Napi::Number>().Int64Value();
    return run_job(info.Env(), [&known, batch, size]() -> Result {
      const model::TrainingMemory memory = model::training_memory(known, batch, size);
      return [memory](Napi::Env env) -> Napi::Value {
        auto out = Napi::Object::New(env);
        out.Set("parameters", static_cast<double>(memory.parameters));
        out.Set("trainingBytes", memory.bytes);
        return out;
      };
    });
  });
}

Napi::Value set_threads(const Napi::CallbackInfo& info) {
  at::set_num_threads(info[0].As<Napi::Number>().Int32Value());
  return info.Env().Undefined();
}

// (on): the same bits from the same inputs also on CUDA, by LibTorch's deterministic algorithms.
Napi::Value set_deterministic(const Napi::CallbackInfo& info) {
  const bool on = info[0].As<Napi::Boolean>();
  at::globalContext().setDeterministicAlgorithms(on, /*warn_only=*/false);
  at::globalContext().setDeterministicCuDNN(on);
  if (on) at::globalContext().setBenchmarkCuDNN(false);
  return info.Env().Undefined();
}

Napi::Value finish_runs(const Napi::CallbackInfo& info) {
  finish_running_threads();
  return info.Env().Undefined();
}

// What "auto" comes to: (device, precision) to { device, precision }.
Napi::Value resolve(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const c10::Device device = model::choose_device(info[0].As<Napi::String>());
    const model::Precision precision = model::choose_precision(info[1].As<Napi::String>(), device);
    auto out = Napi::Object::New(info.Env());
    out.Set("device", device.str());
    out.Set("precision", model::precision_name(precision));
    return out;
  });
}

// The command line asks for few pools of memory (lib/cli/thread_pool.ts): glibc makes eight a core, and what each keeps of images that
// went through its threads adds up. Not for a library to decide for a whole program.
void limit_memory_pools() {
#ifdef __GLIBC__
  if (const char* pools = std::getenv("CELLCAM_MALLOC_ARENAS")) mallopt(M_ARENA_MAX, std::atoi(pools));
#endif
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  limit_memory_pools();
  exports.Set("describe", Napi::Function::New(env, describe));
  exports.Set("backbones", Napi::Function::New(env, list_backbones));
  exports.Set("trainingMemory", Napi::Function::New(env, training_memory));
  exports.Set("setDeterministic", Napi::Function::New(env, set_deterministic));
  exports.Set("setThreads", Napi::Function::New(env, set_threads));
  exports.Set("finishRuns", Napi::Function::New(env, finish_runs));
  exports.Set("resolve", Napi::Function::New(env, resolve));
  init_image(env, exports);
  init_combo_loss(env, exports);
  init_puzzle_cam(env, exports);
  init_augment(env, exports);
  init_batch_queue(env, exports);
  init_trainer(env, exports);
  init_predictor(env, exports);
  init_cells(env, exports);
  return exports;
}

}  // namespace

NODE_API_MODULE(cellcam, init)

}  // namespace cellcam::binding
