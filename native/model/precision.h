#pragma once
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <string>

namespace cellcam::model {

// int16: float32 but for gradients of 1x1 convolutions with stride 1, whose factors are rounded to integers of 16 bits (fused/integer_loops.h).
enum class Precision { fp32, bf16, fp16, int16 };

// Whether this CPU has int16: with AVX2, or AVX-512 and its VNNI (fused/integer_loops.h).
bool cpu_has_int16();

// "auto": fp16 on CUDA, bf16 on CPUs that multiply it faster than float32, int16 where the CPU has that, else fp32. Throws Error ERR_INVALID_ARG for fp16 on the CPU, and
// for int16 where it has none.
Precision choose_precision(const std::string& name, c10::Device device);
std::string precision_name(Precision precision);

// "auto": CUDA if there is a device. Throws Error ERR_INVALID_ARG where CUDA is asked for and absent.
c10::Device choose_device(const std::string& name);

// Whether a pass of this thread is one with int16.
bool rounds_gradients();

// Mixed precision for the passes of its scope; the casts of weights are kept and shared until it ends.
class Autocast {
 public:
  Autocast(c10::Device device, Precision precision);
  ~Autocast();
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;

 private:
  c10::DeviceType type_;
  bool active_, was_enabled_ = false, was_rounding_;
  c10::ScalarType was_dtype_ = c10::ScalarType::Float;
};

}  // namespace cellcam::model
