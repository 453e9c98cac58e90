#pragma once
#include <ATen/core/Tensor.h>
#include <napi.h>

#include <optional>
#include <string>
#include <vector>

#include "checkpoint/state_dict.h"

namespace cellcam::binding {

// { data, shape } to a tensor on the CPU that shares the array's memory: clone it, or keep the array alive.
at::Tensor tensor_view(const Napi::Value& ndarray);
// A tensor to { data, shape } with memory of its own: Float32Array, Float64Array or Uint8Array.
Napi::Object to_ndarray(Napi::Env env, const at::Tensor& tensor);

// Weights cross as [{ name, dtype, shape, data: Uint8Array }], row-major little-endian bytes.
Napi::Array to_js_tensors(Napi::Env env, const checkpoint::NamedTensors& tensors);
checkpoint::NamedTensors from_js_tensors(const Napi::Value& tensors);  // copies
std::string dtype_name(at::ScalarType type);
Napi::Array to_js_shape(Napi::Env env, at::IntArrayRef shape);

// Plain fields of an options object; TypeScript has filled in and checked all of them.
double number(const Napi::Object& o, const char* name);
std::int64_t integer(const Napi::Object& o, const char* name);
bool boolean(const Napi::Object& o, const char* name);
std::string text(const Napi::Object& o, const char* name);
std::vector<float> floats(const Napi::Object& o, const char* name);
std::uint64_t seed(const Napi::Object& o, const char* name);  // a bigint

}  // namespace cellcam::binding
