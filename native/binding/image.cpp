#include <algorithm>
#include <cstring>

#include "binding/classes.h"
#include "binding/job.h"
#include "binding/values.h"
#include "error.h"
#include "image/quantise.h"
#include "image/resize.h"
#include "image/unfilter.h"

namespace cellcam::binding {

namespace {

using image::Dtype;
using image::Plane;

Dtype dtype_of(const at::Tensor& t) {
  return t.scalar_type() == at::kByte ? Dtype::u8 : t.scalar_type() == at::kUInt16 ? Dtype::u16 : Dtype::f32;
}

double full_scale(Dtype dtype) { return dtype == Dtype::u8 ? 255.0 : dtype == Dtype::u16 ? 65535.0 : 1.0; }

// (image {data, shape (h, w, c)}, height, width) to a Float32Array (height, width, c).
Napi::Value resize_image(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const at::Tensor in = tensor_view(info[0]);
    const std::int64_t height = info[1].As<Napi::Number>().Int64Value(), width = info[2].As<Napi::Number>().Int64Value();
    const std::int64_t h = in.size(0), w = in.size(1), c = in.size(2);
    const Dtype dtype = dtype_of(in);
    std::vector<Plane> planes;
    for (std::int64_t i = 0; i < c; ++i) {
      planes.push_back({static_cast<const char*>(in.data_ptr()) + i * in.element_size(), dtype, c});
    }
    auto out = Napi::Float32Array::New(info.Env(), static_cast<std::size_t>(height * width * c));
    image::resize_to_float(planes, h, w, full_scale(dtype), out.Data(), height, width);
    return out;
  });
}

template <typename T>
Result pixels(std::vector<T> values) {
  auto shared = std::make_shared<std::vector<T>>(std::move(values));
  return [shared](Napi::Env env) -> Napi::Value {
    auto out = Napi::TypedArrayOf<T>::New(env, shared->size());
    std::memcpy(out.Data(), shared->data(), shared->size() * sizeof(T));
    return out;
  };
}

// (planes [{data, shape (h, w)}], size, 'uint8' | 'float32') to a promise of (size, size, planes) values.
Napi::Value resize_field(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto list = info[0].As<Napi::Array>();
    std::vector<at::Tensor> views;
    std::vector<Napi::Object> keep;
    for (std::uint32_t i = 0; i < list.Length(); ++i) {
      views.push_back(tensor_view(list.Get(i)));
      keep.push_back(list.Get(i).As<Napi::Object>().Get("data").As<Napi::Object>());
    }
    const std::int64_t size = info[1].As<Napi::Number>().Int64Value();
    const bool floats = info[2].As<Napi::String>().Utf8Value() == "float32";
    return run_job(
        info.Env(),
        [views, size, floats]() -> Result {
          std::vector<Plane> planes;
          for (const at::Tensor& v : views) planes.push_back({v.data_ptr(), dtype_of(v), 1});
          const std::int64_t h = views.front().size(0), w = views.front().size(1);
          const double divisor = image::field_divisor(planes, h, w);
          const auto count = static_cast<std::size_t>(size * size) * planes.size();
          if (floats) {
            std::vector<float> out(count);
            image::resize_to_float(planes, h, w, divisor, out.data(), size, size);
            return pixels(std::move(out));
          }
          std::vector<std::uint8_t> out(count);
          image::resize_to_uint8(planes, h, w, divisor, out.data(), size, size);
          return pixels(std::move(out));
        },
        keep);
  });
}

// (Uint8Array, height, bytes a row, bytes a sample) to a promise of whether its filters are PNG's; the array is unfiltered in place.
Napi::Value unfilter(const Napi::CallbackInfo& info) {
  auto rows = info[0].As<Napi::Uint8Array>();
  std::uint8_t* data = rows.Data();
  const std::int64_t height = info[1].As<Napi::Number>().Int64Value(), row_bytes = info[2].As<Napi::Number>().Int64Value(),
                     sample_bytes = info[3].As<Napi::Number>().Int64Value();
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (static_cast<std::int64_t>(rows.ByteLength()) != height * (row_bytes + 1)) throw Error("ERR_NATIVE", "rows of another size");
    const auto work = [=]() -> Result {
      const bool known = image::unfilter(data, height, row_bytes, sample_bytes);
      return [known](Napi::Env env) -> Napi::Value { return Napi::Boolean::New(env, known); };
    };
    return run_job(info.Env(), work, {rows});
  });
}

// (ArrayBuffers): their memory goes back at once, and V8 counts it no longer.
Napi::Value release(const Napi::CallbackInfo& info) {
  const auto buffers = info[0].As<Napi::Array>();
  for (std::uint32_t i = 0; i < buffers.Length(); ++i) buffers.Get(i).As<Napi::ArrayBuffer>().Detach();
  return info.Env().Undefined();
}

// (Float32Array, Uint8Array of the same length) to the place of the first value outside [0, 1], or -1.
Napi::Value quantise(const Napi::CallbackInfo& info) {
  const auto values = info[0].As<Napi::Float32Array>();
  auto out = info[1].As<Napi::Uint8Array>();
  const auto count = static_cast<std::int64_t>(std::min(values.ElementLength(), out.ElementLength()));
  return Napi::Number::New(info.Env(), static_cast<double>(image::quantise(values.Data(), count, out.Data())));
}

}  // namespace

void init_image(Napi::Env env, Napi::Object exports) {
  exports.Set("release", Napi::Function::New(env, release));
  exports.Set("unfilter", Napi::Function::New(env, unfilter));
  exports.Set("resizeImage", Napi::Function::New(env, resize_image));
  exports.Set("quantise", Napi::Function::New(env, quantise));
  exports.Set("resizeField", Napi::Function::New(env, resize_field));
}

}  // namespace cellcam::binding
