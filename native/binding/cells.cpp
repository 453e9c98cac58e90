#include "binding/classes.h"
#include "binding/job.h"
#include "binding/values.h"
#include "cells/dpn_unet.h"
#include "cells/label_cells.h"
#include "cells/quick_segmenter.h"
#include "checkpoint/state_dict.h"
#include "error.h"

namespace cellcam::binding {

namespace {

Napi::Object to_mask(Napi::Env env, const cells::Labels& labels) {
  auto data = Napi::Uint16Array::New(env, labels.values.size());
  std::copy(labels.values.begin(), labels.values.end(), data.Data());
  auto out = Napi::Object::New(env);
  out.Set("data", data);
  out.Set("shape", to_js_shape(env, {labels.height, labels.width}));
  return out;
}

Result instances(cells::Instances found) {
  auto shared = std::make_shared<cells::Instances>(std::move(found));
  return [shared](Napi::Env env) -> Napi::Value {
    auto out = Napi::Object::New(env);
    out.Set("nuclei", to_mask(env, shared->nuclei));
    out.Set("cells", to_mask(env, shared->cells));
    return out;
  };
}

// (nuclei, cells: (h, w, 3) uint8, scale, wrap) to a promise of { nuclei, cells }, (h, w) uint16.
Napi::Value label_cells(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const at::Tensor nuclei = tensor_view(info[0]), cells = tensor_view(info[1]);
    const double scale = info[2].As<Napi::Number>();
    const bool wrap = info[3].As<Napi::Boolean>();
    const auto data = [&](int i) { return info[i].As<Napi::Object>().Get("data").As<Napi::Object>(); };
    return run_job(
        info.Env(),
        [=]() -> Result {
          const cells::ProbabilityMaps maps{nuclei.size(0), nuclei.size(1), nuclei.const_data_ptr<std::uint8_t>(),
                                            cells.const_data_ptr<std::uint8_t>()};
          return instances(cells::label_cells(maps, scale, wrap));
        },
        {data(0), data(1)});
  });
}

// (nuclei, cells[]: (h, w) float32) to a promise of { nuclei, cells }.
Napi::Value segment_quickly(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto plane = [](const Napi::Value& value) {
      const at::Tensor view = tensor_view(value);
      cells::Plane out(view.size(0), view.size(1));
      std::copy_n(view.const_data_ptr<float>(), out.size(), out.values.data());
      return out;
    };
    const auto list = info[1].As<Napi::Array>();
    std::vector<cells::Plane> stains;
    for (std::uint32_t i = 0; i < list.Length(); ++i) stains.push_back(plane(list.Get(i)));
    return run_job(info.Env(), [nuclei = plane(info[0]), stains]() -> Result {
      return instances(cells::segment_quickly(nuclei, stains));
    });
  });
}

}  // namespace

class DpnUnetObject : public Napi::ObjectWrap<DpnUnetObject> {
 public:
  // (weights, device): as a network in evaluation mode.
  explicit DpnUnetObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DpnUnetObject>(info) {
    guarded(info.Env(), [&] {
      const c10::Device device = model::choose_device(info[1].As<Napi::String>());
      const c10::InferenceMode inference(false);
      network_ = std::make_shared<Network>();
      checkpoint::load_state_dict(network_->unet, from_js_tensors(info[0]));
      network_->unet.eval();
      network_->unet.move_to(device);
    });
  }

  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "DpnUnet",
                       {InstanceMethod("probabilities", &DpnUnetObject::probabilities), InstanceMethod("dispose", &DpnUnetObject::dispose)});
  }

 private:
  struct Network {
    cells::DpnUnet unet;
    std::mutex turn;
  };

  // (images {data: Float32Array, shape (B, 3, H, W)}, precision) to a promise of the softmax; images stay as they are till then.
  Napi::Value probabilities(const Napi::CallbackInfo& info) {
    return guarded(info.Env(), [&]() -> Napi::Value {
      if (!network_) throw Error("ERR_DISPOSED", "the segmenter was disposed");
      const at::Tensor images = tensor_view(info[0]);
      const auto data = info[0].As<Napi::Object>().Get("data").As<Napi::Object>();
      const std::string precision = info[1].As<Napi::String>();
      return run_job(
          info.Env(),
          [network = network_, images, precision]() -> Result {
            const std::unique_lock turn(network->turn);
            const c10::Device device = network->unet.parameters().front().device();
            const at::Tensor p = network->unet.probabilities(images, model::choose_precision(precision, device)).cpu();
            return [p](Napi::Env env) -> Napi::Value { return to_ndarray(env, p); };
          },
          {data});
    });
  }

  Napi::Value dispose(const Napi::CallbackInfo& info) {
    network_.reset();
    return info.Env().Undefined();
  }

  std::shared_ptr<Network> network_;
};

void init_cells(Napi::Env env, Napi::Object exports) {
  exports.Set("labelCells", Napi::Function::New(env, label_cells));
  exports.Set("segmentQuickly", Napi::Function::New(env, segment_quickly));
  exports.Set("DpnUnet", DpnUnetObject::define(env));
}

}  // namespace cellcam::binding
