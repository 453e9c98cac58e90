#pragma once
#include <functional>
#include <memory>
#include <thread>

namespace cellcam::binding {

// A thread for work that takes hours. It is joined when its owner goes, or by finish_running_threads.
class RunningThread {
 public:
  // `cancel` makes `body` return soon; it may be called from any thread, more than once.
  RunningThread(std::function<void()> body, std::function<void()> cancel);
  ~RunningThread();  // cancels unless it was joined, and joins
  RunningThread(const RunningThread&) = delete;
  RunningThread& operator=(const RunningThread&) = delete;

  void join();    // for a body that has come to its end
  void finish();  // cancels and joins; idempotent

 private:
  std::function<void()> cancel_;
  std::thread thread_;
};

// Cancels and joins all of them. The process's exit event calls it: afterwards static destructors take LibTorch apart, and an
// atexit handler would come too late, since LibTorch makes some of its statics during the first step.
void finish_running_threads();

}  // namespace cellcam::binding
