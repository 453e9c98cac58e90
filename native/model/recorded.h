#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

namespace cellcam::model {

// Work on a CUDA device that is the same at every call but for the values in its inputs, recorded once as a CUDA graph and from then on
// launched as a whole: thousands of launches become one. What cannot be recorded runs launch by launch, after a warning that says why.
// Only in builds with CUDA's headers (CELLCAM_CUDA_HEADERS in CMakeLists.txt); CELLCAM_CUDA_GRAPH=0 turns it off. One thread at a time.
class Recorded {
 public:
  using Tensors = std::vector<at::Tensor>;
  // Enqueues everything on the current stream, reads nothing back and takes nothing from the host but what `key` tells.
  using Work = std::function<Tensors(const Tensors& inputs)>;

  explicit Recorded(at::Device device);
  ~Recorded();

  // work(inputs). It is recorded when it has run kWarmUps times in a row with the same key and with inputs of the same shapes, and on this
  // thread at least once; a call unlike the others, such as an epoch's last batch, runs by itself. What is returned holds until the next
  // call. A replay changes tensors without their versions.
  // `key`: whatever decides which operations run and on which memory, apart from the inputs.
  Tensors operator()(std::vector<std::int64_t> key, const Tensors& inputs, const Work& work);

  // Gives the recording and its memory back.
  void forget();

  // cuDNN chooses its algorithms in these, for each thread by itself, which cannot be recorded.
  static constexpr int kWarmUps = 3;

 private:
  class Graph;
  std::unique_ptr<Graph> graph_;  // absent where nothing is recorded
  std::vector<std::int64_t> last_;
  int in_a_row_ = 0;
  std::set<int> warm_threads_;
};

// Held while something is recorded, and by all else that waits for a whole device: no device may be waited for while one is recorded on.
std::unique_lock<std::mutex> device_turn();

}  // namespace cellcam::model
