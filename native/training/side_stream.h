#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace cellcam::training {

// A stream of a CUDA device beside the current one, for what may run while the current one still works on earlier things.
// Uses c10 streams only, so that it compiles without CUDA's headers.
class SideStream {
 public:
  explicit SideStream(c10::Device device)
      : device_(device), impl_(device.type()), stream_(impl_.getStreamFromGlobalPool(device, /*isHighPriority=*/false)), event_(device.type()) {}

  // What was enqueued on the current stream until now comes before all that is still to come here.
  void follow() {
    event_.record(impl_.getStream(device_));
    event_.block(stream_);
  }

  // work(), whose operations go to this stream. Its result is a pair of tensors, for use on the current stream at once.
  template <typename Work>
  auto run(const Work& work) {
    const c10::Stream current = impl_.getStream(device_);
    auto out = [&] {
      const c10::StreamGuard guard(stream_);
      return work();
    }();
    event_.record(stream_);
    event_.block(current);
    // Or else their memory might be given to the next work before the current stream has read them.
    out.first.record_stream(current);
    out.second.record_stream(current);
    return out;
  }

 private:
  c10::Device device_;
  c10::impl::VirtualGuardImpl impl_;
  c10::Stream stream_;
  c10::Event event_;
};

}  // namespace cellcam::training
