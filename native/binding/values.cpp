#include "binding/values.h"

#include <ATen/Functions.h>

#include <cstring>
#include <unordered_map>

#include "error.h"

namespace cellcam::binding {

namespace {

at::ScalarType element_type(const Napi::TypedArray& array) {
  switch (array.TypedArrayType()) {
    case napi_float32_array: return at::kFloat;
    case napi_float64_array: return at::kDouble;
    case napi_uint8_array: return at::kByte;
    case napi_uint16_array: return at::kUInt16;
    case napi_int32_array: return at::kInt;
    default: throw Error("ERR_INVALID_ARG", "an array of a type that no tensor has");
  }
}

void* address(const Napi::TypedArray& array) {
  // A Uint8Array's data pointer for any element type, also over a SharedArrayBuffer.
  void* data = nullptr;
  napi_typedarray_type type;
  std::size_t length = 0, offset = 0;
  napi_value buffer;
  napi_get_typedarray_info(array.Env(), array, &type, &length, &data, &buffer, &offset);
  return data;
}

std::vector<std::int64_t> shape_of(const Napi::Value& value) {
  const auto list = value.As<Napi::Array>();
  std::vector<std::int64_t> shape;
  for (std::uint32_t i = 0; i < list.Length(); ++i) shape.push_back(list.Get(i).As<Napi::Number>().Int64Value());
  return shape;
}

const std::unordered_map<std::string, at::ScalarType>& dtypes() {
  static const std::unordered_map<std::string, at::ScalarType> all = {
      {"float32", at::kFloat}, {"float64", at::kDouble}, {"float16", at::kHalf}, {"bfloat16", at::kBFloat16},
      {"int64", at::kLong},    {"int32", at::kInt},      {"int16", at::kShort},  {"int8", at::kChar},
      {"uint8", at::kByte},    {"bool", at::kBool}};
  return all;
}

template <typename Array>
Napi::Value typed_copy(Napi::Env env, const at::Tensor& tensor) {
  auto array = Array::New(env, static_cast<std::size_t>(tensor.numel()));
  if (tensor.numel() > 0) std::memcpy(array.Data(), tensor.data_ptr(), tensor.nbytes());
  return array;
}

Napi::Value typed_array(Napi::Env env, const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kDouble: return typed_copy<Napi::Float64Array>(env, tensor);
    case at::kByte: return typed_copy<Napi::Uint8Array>(env, tensor);
    default: return typed_copy<Napi::Float32Array>(env, tensor.to(at::kFloat));
  }
}

Napi::Value field(const Napi::Object& o, const char* name) {
  const Napi::Value value = o.Get(name);
  if (value.IsUndefined()) throw Error("ERR_INVALID_ARG", std::string("the option ") + name + " did not reach the addon");
  return value;
}

}  // namespace

at::Tensor tensor_view(const Napi::Value& ndarray) {
  const auto object = ndarray.As<Napi::Object>();
  const auto data = object.Get("data").As<Napi::TypedArray>();
  return at::from_blob(address(data), shape_of(object.Get("shape")), at::TensorOptions(element_type(data)));
}

Napi::Array to_js_shape(Napi::Env env, at::IntArrayRef shape) {
  auto list = Napi::Array::New(env, shape.size());
  for (std::uint32_t i = 0; i < shape.size(); ++i) list.Set(i, static_cast<double>(shape[i]));
  return list;
}

Napi::Object to_ndarray(Napi::Env env, const at::Tensor& tensor) {
  const at::Tensor plain = tensor.detach().cpu().contiguous();
  auto object = Napi::Object::New(env);
  object.Set("data", typed_array(env, plain));
  object.Set("shape", to_js_shape(env, plain.sizes()));
  return object;
}

std::string dtype_name(at::ScalarType type) {
  for (const auto& [name, candidate] : dtypes()) {
    if (candidate == type) return name;
  }
  throw Error("ERR_WEIGHTS", std::string("a tensor of a type that weight files do not have: ") + at::toString(type));
}

Napi::Array to_js_tensors(Napi::Env env, const checkpoint::NamedTensors& tensors) {
  auto list = Napi::Array::New(env, tensors.size());
  std::uint32_t i = 0;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.detach().cpu().contiguous();
    auto data = Napi::Uint8Array::New(env, plain.nbytes());
    std::memcpy(data.Data(), plain.data_ptr(), plain.nbytes());
    auto entry = Napi::Object::New(env);
    entry.Set("name", name);
    entry.Set("dtype", dtype_name(plain.scalar_type()));
    entry.Set("shape", to_js_shape(env, plain.sizes()));
    entry.Set("data", data);
    list.Set(i++, entry);
  }
  return list;
}

checkpoint::NamedTensors from_js_tensors(const Napi::Value& tensors) {
  const auto list = tensors.As<Napi::Array>();
  checkpoint::NamedTensors out;
  for (std::uint32_t i = 0; i < list.Length(); ++i) {
    const auto entry = list.Get(i).As<Napi::Object>();
    const auto type = dtypes().find(text(entry, "dtype"));
    if (type == dtypes().end()) throw Error("ERR_WEIGHTS", "a tensor of the unknown type " + text(entry, "dtype"));
    at::Tensor tensor = at::empty(shape_of(entry.Get("shape")), type->second);
    const auto data = entry.Get("data").As<Napi::Uint8Array>();
    if (data.ByteLength() != tensor.nbytes()) throw Error("ERR_WEIGHTS", text(entry, "name") + " has the wrong number of bytes");
    std::memcpy(tensor.data_ptr(), address(data), tensor.nbytes());
    out.emplace_back(text(entry, "name"), tensor);
  }
  return out;
}

double number(const Napi::Object& o, const char* name) { return field(o, name).As<Napi::Number>().DoubleValue(); }
std::int64_t integer(const Napi::Object& o, const char* name) { return field(o, name).As<Napi::Number>().Int64Value(); }
bool boolean(const Napi::Object& o, const char* name) { return field(o, name).As<Napi::Boolean>().Value(); }
std::string text(const Napi::Object& o, const char* name) { return field(o, name).As<Napi::String>().Utf8Value(); }

std::vector<float> floats(const Napi::Object& o, const char* name) {
  const auto list = field(o, name).As<Napi::Array>();
  std::vector<float> out;
  for (std::uint32_t i = 0; i < list.Length(); ++i) out.push_back(list.Get(i).As<Napi::Number>().FloatValue());
  return out;
}

std::uint64_t seed(const Napi::Object& o, const char* name) {
  bool lossless = false;
  return field(o, name).As<Napi::BigInt>().Uint64Value(&lossless);
}

}  // namespace cellcam::binding
