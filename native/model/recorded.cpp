#include "model/recorded.h"

#ifdef CELLCAM_CUDA_GRAPHS

#include <ATen/Functions.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include <atomic>
#include <optional>

#include "model/cancellation.h"
#include "model/switches.h"

namespace cellcam::model {

namespace {

namespace allocator = c10::cuda::CUDACachingAllocator;

// Unlike std::thread::id, never that of a thread before.
int this_thread() {
  static std::atomic<int> threads{0};
  thread_local const int number = threads++;
  return number;
}

// Makes what comes on `later` wait for what is on `earlier`.
void order(const c10::Stream& earlier, const c10::Stream& later) {
  c10::Event event(earlier.device_type());
  event.record(earlier);
  event.block(later);
}

void append_shape(std::vector<std::int64_t>& key, const at::Tensor& t) {
  key.push_back(t.dim());
  key.insert(key.end(), t.sizes().begin(), t.sizes().end());
  key.insert(key.end(), t.strides().begin(), t.strides().end());
  key.push_back(static_cast<std::int64_t>(t.scalar_type()));
}

// One recording, with the memory of its inputs and of all that it computes.
class Recording {
 public:
  Recording(const c10::Stream& stream, const Recorded::Tensors& inputs, const Recorded::Work& work) {
    const c10::StreamGuard guard(stream);
    c10::cuda::device_synchronize();
    allocator::emptyCache();  // the recording has memory of its own
    for (const at::Tensor& input : inputs) inputs_.push_back(at::empty_strided(input.sizes(), input.strides(), input.options()));
    const auto pool = at::cuda::graph_pool_handle();
    // ThreadLocal: other threads, say those of another model, may go on allocating.
    graph_->capture_begin(pool, cudaStreamCaptureModeThreadLocal);
    try {
      outputs_ = work(inputs_);
      graph_->capture_end();
    } catch (...) {
      outputs_.clear();
      abandon(stream.device_index(), pool);
      throw;
    }
  }

  Recorded::Tensors run(const Recorded::Tensors& inputs) {
    for (std::size_t i = 0; i < inputs.size(); ++i) inputs_[i].copy_(inputs[i]);
    graph_->replay();
    return outputs_;
  }

 private:
  // Takes stream and allocator out of the recording, whichever is still in it. Why it failed is on its way to the caller already.
  void abandon(c10::DeviceIndex device, const auto& pool) {
    try {
      graph_->capture_end();
      return;
    } catch (const std::exception&) {  // CUDA had declared the recording void
    }
    try {
      allocator::endAllocateToPool(device, pool);
      allocator::releasePool(device, pool);
    } catch (const std::exception&) {  // it had come so far as to leave the pool by itself
    }
    static_cast<void>(graph_.release());  // the allocator of pinned memory may refer to it for good
  }

  std::unique_ptr<at::cuda::CUDAGraph> graph_ = std::make_unique<at::cuda::CUDAGraph>();
  Recorded::Tensors inputs_, outputs_;
};

}  // namespace

class Recorded::Graph {
 public:
  explicit Graph(at::Device device)
      : impl_(device.type()), device_(device), stream_(impl_.getStreamFromGlobalPool(device, /*isHighPriority=*/false)) {}

  // Launch by launch, on the stream that a recording is made on: what is kept between calls then belongs to it.
  Tensors warm_up(const Tensors& inputs, const Work& work) {
    const auto turn = device_turn();  // cuDNN's search waits for the device
    const c10::Stream current = impl_.getStream(device_);
    order(current, stream_);
    Tensors out;
    {
      const c10::StreamGuard guard(stream_);
      out = work(inputs);
    }
    order(stream_, current);
    return out;
  }

  bool holds(const std::vector<std::int64_t>& key) const { return recording_ && key == key_; }

  Tensors replay(const Tensors& inputs) { return recording_->run(inputs); }

  void forget() { recording_.reset(); }

  // False where it cannot be recorded.
  bool record(std::vector<std::int64_t> key, const Tensors& inputs, const Work& work) {
    const auto turn = device_turn();
    recording_.reset();  // before the next one takes its memory
    try {
      recording_.emplace(stream_, inputs, work);
      key_ = std::move(key);
      return true;
    } catch (const Cancelled&) {
      throw;
    } catch (const std::exception& e) {
      TORCH_WARN("cellcam could not record its work as a CUDA graph and goes on launch by launch: ", e.what());
      return false;
    }
  }

 private:
  c10::impl::VirtualGuardImpl impl_;
  at::Device device_;
  c10::Stream stream_;
  std::optional<Recording> recording_;
  std::vector<std::int64_t> key_;
};

Recorded::Recorded(at::Device device) {
  if (device.is_cuda() && switched_on("CELLCAM_CUDA_GRAPH")) graph_ = std::make_unique<Graph>(device);
}

Recorded::Tensors Recorded::operator()(std::vector<std::int64_t> key, const Tensors& inputs, const Work& work) {
  if (!graph_) return work(inputs);
  for (const at::Tensor& input : inputs) append_shape(key, input);
  if (graph_->holds(key)) {
    in_a_row_ = 0;
    return graph_->replay(inputs);
  }
  if (key != last_) warm_threads_.clear();
  in_a_row_ = key == last_ ? in_a_row_ + 1 : 1;
  last_ = key;
  // Evaluated in this order: the first call of a thread warms it up.
  if (warm_threads_.insert(this_thread()).second || in_a_row_ <= kWarmUps) return graph_->warm_up(inputs, work);
  if (graph_->record(std::move(key), inputs, work)) return graph_->replay(inputs);
  graph_.reset();
  return work(inputs);
}

void Recorded::forget() {
  in_a_row_ = 0;
  if (graph_) graph_->forget();
}

}  // namespace cellcam::model

#else

namespace cellcam::model {

class Recorded::Graph {};
Recorded::Recorded(at::Device) {}
Recorded::Tensors Recorded::operator()(std::vector<std::int64_t>, const Tensors& inputs, const Work& work) { return work(inputs); }
void Recorded::forget() {}

}  // namespace cellcam::model

#endif

namespace cellcam::model {

Recorded::~Recorded() = default;

std::unique_lock<std::mutex> device_turn() {
  static std::mutex mutex;
  return std::unique_lock(mutex);
}

}  // namespace cellcam::model
