#include "model/backbones/backbone.h"

#include <ATen/Functions.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>

#include "error.h"

namespace cellcam::model {

namespace {

std::vector<BackboneInfo>& registry() {
  static std::vector<BackboneInfo> all;
  return all;
}

// Counts this thread's tensor memory on the CPU while it lives.
class AllocationCounter {
 public:
  AllocationCounter() : counter_(std::make_shared<Counter>()), guard_(c10::DebugInfoKind::PROFILER_STATE, counter_) {}
  std::int64_t bytes() const { return counter_->bytes; }

 private:
  struct Counter : c10::MemoryReportingInfoBase {
    void reportMemoryUsage(void*, std::int64_t alloc_size, std::size_t, std::size_t, c10::Device) override { bytes += alloc_size; }
    bool memoryProfilingEnabled() const override { return true; }
    std::int64_t bytes = 0;
  };
  std::shared_ptr<Counter> counter_;
  c10::DebugInfoGuard guard_;
};

}  // namespace

Registration::Registration(BackboneInfo info) {
  auto& all = registry();
  const auto place = std::lower_bound(all.begin(), all.end(), info, [](const auto& a, const auto& b) { return a.name < b.name; });
  all.insert(place, std::move(info));
}

const std::vector<BackboneInfo>& backbones() { return registry(); }

const BackboneInfo& find_backbone(const std::string& name) {
  std::string known;
  for (const BackboneInfo& info : backbones()) {
    if (info.name == name) return info;
    known += (known.empty() ? "" : ", ") + info.name;
  }
  throw Error("ERR_INVALID_ARG", "Expected one of " + known + " for backbone but received '" + name + "'");
}

TrainingMemory training_memory(const BackboneInfo& info, std::int64_t batch, std::int64_t size) {
  constexpr std::int64_t kProbe = 128;
  constexpr double kStateBytes = 4 * 4 + 2;  // float32 weight, gradient and two moments, and the float16 cast of the weight
  const auto network = info.create(4);
  network->train();
  const at::Tensor image = at::zeros({1, 4, kProbe, kProbe});
  TrainingMemory memory{0, 0};
  for (const at::Tensor& p : network->parameters()) memory.parameters += p.numel();
  const AllocationCounter kept;
  const Views features = network->forward(Views(image));
  const double passes = 2, float16 = 0.5;
  const double images = static_cast<double>(batch) * static_cast<double>(size * size) / (kProbe * kProbe);
  memory.bytes = kStateBytes * static_cast<double>(memory.parameters) +
                 static_cast<double>(kept.bytes()) * images * passes * float16;
  return memory;
}

}  // namespace cellcam::model
