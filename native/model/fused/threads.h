#pragma once
#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>

namespace cellcam::model::fused {

// Calls f() on every thread at once. What there is to do is handed out within f, as threads need not be equally fast.
template <typename F>
void on_all_threads(const F& f) {
  at::parallel_for(0, at::get_num_threads(), 1, [&](std::int64_t, std::int64_t) { f(); });
}

// The numbers below `count`, each for one of the threads that ask.
class Numbers {
 public:
  explicit Numbers(std::int64_t count) : count_(count) {}
  std::int64_t count() const { return count_; }
  // Calls f(number) until there are no more.
  template <typename F>
  void each(const F& f) {
    for (std::int64_t i = taken_++; i < count_; i = taken_++) f(i);
  }

 private:
  std::int64_t count_;
  std::atomic<std::int64_t> taken_ = 0;
};

}  // namespace cellcam::model::fused
