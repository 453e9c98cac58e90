#include "model/precision.h"

#include <ATen/autocast_mode.h>
#include <torch/cuda.h>

#include "error.h"
#include "model/fused/integer_loops.h"
#include "model/fused/matrix_product.h"

namespace cellcam::model {

namespace {

thread_local bool rounds = false;

// Whether this CPU multiplies bfloat16 faster than float32: with AMX, or AMD's AVX-512 BF16. Intel's without AMX, as virtual machines often have it, takes
// four times as long for each instruction as for one of float32, with twice as many products in it.
bool cpu_has_bf16() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx512bf16") && (__builtin_cpu_is("amd") || __builtin_cpu_supports("amx-bf16"));
#else
  return false;
#endif
}

}  // namespace

bool cpu_has_int16() { return fused::multiplies() && fused::integer_loops() != nullptr; }

bool rounds_gradients() { return rounds; }

Precision choose_precision(const std::string& name, c10::Device device) {
  if (name == "fp32") return Precision::fp32;
  if (name == "bf16") return Precision::bf16;
  if (name == "fp16") {
    if (device.is_cuda()) return Precision::fp16;
    throw Error("ERR_INVALID_ARG", "Expected fp32, bf16, int16 or auto for precision on the CPU but received 'fp16' of type string");
  }
  const bool has_int16 = device.is_cpu() && cpu_has_int16();
  if (name == "int16") {
    if (has_int16) return Precision::int16;
    throw Error("ERR_INVALID_ARG", "Expected fp32, bf16, fp16 or auto for precision but received 'int16' of type string: it is for CPUs with AVX2, those with AVX-512 only if they have its VNNI");
  }
  if (device.is_cuda()) return Precision::fp16;
  return cpu_has_bf16() ? Precision::bf16 : has_int16 ? Precision::int16 : Precision::fp32;
}

std::string precision_name(Precision precision) {
  switch (precision) {
    case Precision::fp32: return "fp32";
    case Precision::bf16: return "bf16";
    case Precision::fp16: return "fp16";
    case Precision::int16: return "int16";
  }
  return {};
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
    : type_(device.type()), active_(precision == Precision::bf16 || precision == Precision::fp16), was_rounding_(rounds) {
  rounds = precision == Precision::int16;
  if (!active_) return;
  was_enabled_ = at::autocast::is_autocast_enabled(type_);
  was_dtype_ = at::autocast::get_autocast_dtype(type_);
  at::autocast::set_autocast_enabled(type_, true);
  at::autocast::set_autocast_dtype(type_, precision == Precision::bf16 ? at::kBFloat16 : at::kHalf);
  at::autocast::increment_nesting();
}

Autocast::~Autocast() {
  rounds = was_rounding_;
  if (!active_) return;
  if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
  at::autocast::set_autocast_enabled(type_, was_enabled_);
  at::autocast::set_autocast_dtype(type_, was_dtype_);
}

}  // namespace cellcam::model
