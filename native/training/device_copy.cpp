#include "training/device_copy.h"

#include <ATen/Functions.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>

#include "model/switches.h"

namespace cellcam::training {

DeviceCopy::DeviceCopy(c10::Device device)
    : device_(device),
      stream_(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, /*isHighPriority=*/false)),
      stagings_{Staging{{}, c10::Event(device.type())}, Staging{{}, c10::Event(device.type())},
                Staging{{}, c10::Event(device.type())}} {}

at::Tensor DeviceCopy::copy(const at::Tensor& host) {
  static const bool on = model::switched_on("CELLCAM_PINNED_COPY");
  if (!on) return host.to(device_);
  Staging& staging = stagings_[next_];
  next_ = (next_ + 1) % stagings_.size();
  if (staging.used) staging.copied.synchronize();
  if (!staging.pinned.defined() || staging.pinned.sizes() != host.sizes()) {
    staging.pinned = at::empty(host.sizes(), host.options().pinned_memory(true));
  }
  std::memcpy(staging.pinned.data_ptr(), host.data_ptr(), host.nbytes());
  at::Tensor on_device;
  {
    const c10::StreamGuard guard(stream_);
    on_device = staging.pinned.to(device_, /*non_blocking=*/true);
    staging.copied.record(stream_);
    staging.used = true;
  }
  const c10::Stream current = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  staging.copied.block(current);
  on_device.record_stream(current);
  return on_device;
}

}  // namespace cellcam::training
