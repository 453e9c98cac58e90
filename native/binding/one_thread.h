#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>

#include "binding/running.h"
#include "model/cancellation.h"
#include "model/switches.h"

namespace cellcam::binding {

// A thread that does what others ask for, one thing after the other. LibTorch keeps much by thread: cuDNN's choice of algorithms, which it
// searches for, and OpenMP's helpers; work spread over libuv's threads would pay for each of them. CELLCAM_ONE_THREAD=0: those who ask do
// it themselves and must take turns; Node waits for libuv's threads before it exits.
class OneThread {
 public:
  // `cancel` makes the work in hand end soon, for when the process exits.
  explicit OneThread(std::function<void()> cancel)
      : thread_([this] { loop(); },
                [this, cancel = std::move(cancel)] {
                  cancel();
                  stop();
                }) {}
  ~OneThread() {
    stop();
    thread_.join();
  }

  // f() on the thread; waits for it, and throws what it throws. Throws Cancelled if the thread ends before.
  template <typename F>
  auto run(F f) {
    using R = decltype(f());
    if (!on_) return f();
    auto task = std::make_shared<std::packaged_task<R()>>(std::move(f));
    std::future<R> result = task->get_future();
    {
      const std::lock_guard lock(mutex_);
      if (stopped_) throw model::Cancelled();
      tasks_.push_back([task = std::move(task)] { (*task)(); });
    }
    changed_.notify_all();
    try {
      return result.get();
    } catch (const std::future_error&) {
      throw model::Cancelled();
    }
  }

 private:
  void stop() {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    changed_.notify_all();
  }

  void loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
      changed_.wait(lock, [&] { return stopped_ || !tasks_.empty(); });
      if (stopped_) break;
      const std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      lock.lock();
    }
    tasks_.clear();  // whoever waits for one learns that it will not come
  }

  const bool on_ = model::switched_on("CELLCAM_ONE_THREAD");
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool stopped_ = false;
  RunningThread thread_;  // last: it uses what is above
};

}  // namespace cellcam::binding
