#include "model/precision.h"

#include <ATen/autocast_mode.h>
#include <torch/cuda.h>

#include "error.h"

namespace cellcam::model {

bool cpu_has_bf16() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

Precision choose_precision(const std::string& name, c10::Device device) {
  if (name == "fp32") return Precision::fp32;
  if (name == "bf16") return Precision::bf16;
  if (name == "fp16") {
    if (device.is_cuda()) return Precision::fp16;
    throw Error("ERR_INVALID_ARG", "Expected fp32, bf16 or auto for precision on the CPU but received 'fp16' of type string");
  }
  if (device.is_cuda()) return Precision::fp16;
  return cpu_has_bf16() ? Precision::bf16 : Precision::fp32;
}

std::string precision_name(Precision precision) {
  return precision == Precision::fp32 ? "fp32" : precision == Precision::bf16 ? "bf16" : "fp16";
}

c10::Device choose_device(const std::string& name) {
  const std::int64_t devices = torch::cuda::is_available() ? static_cast<std::int64_t>(torch::cuda::device_count()) : 0;
  if (name == "cpu" || (name == "auto" && devices == 0)) return c10::Device(c10::kCPU);
  const c10::Device device(name == "auto" ? "cuda:0" : name == "cuda" ? "cuda:0" : name);
  if (device.index() < devices) return device;
  throw Error("ERR_INVALID_ARG", "Expected a device that is there but received '" + name + "': LibTorch sees " +
                                     std::to_string(devices) + " CUDA devices");
}

Autocast::Autocast(c10::Device device, Precision precision)
    : type_(device.type()), active_(precision != Precision::fp32) {
  if (!active_) return;
  was_enabled_ = at::autocast::is_autocast_enabled(type_);
  was_dtype_ = at::autocast::get_autocast_dtype(type_);
  at::autocast::set_autocast_enabled(type_, true);
  at::autocast::set_autocast_dtype(type_, precision == Precision::bf16 ? at::kBFloat16 : at::kHalf);
  at::autocast::increment_nesting();
}

Autocast::~Autocast() {
  if (!active_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(type_, was_enabled_);
  at::autocast::set_autocast_dtype(type_, was_dtype_);
}

}  // namespace cellcam::model
