#include "model/backbones/backbone.h"

#include "error.h"

namespace cellcam::model {

const std::vector<BackboneInfo>& backbones() {
  static const std::vector<BackboneInfo> all = resnet_family();
  return all;
}

const BackboneInfo& find_backbone(const std::string& name) {
  std::string known;
  for (const BackboneInfo& info : backbones()) {
    if (info.name == name) return info;
    known += (known.empty() ? "" : ", ") + info.name;
  }
  throw Error("ERR_INVALID_ARG", "Expected one of " + known + " for backbone but received '" + name + "'");
}

}  // namespace cellcam::model
