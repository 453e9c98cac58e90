#pragma once
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "model/switches.h"

namespace cellcam::model::fused {

// Whether our own loops run on all of LibTorch's threads, instead of on the one that calls.
inline bool all_threads() {
  static const bool on = switched_on("CELLCAM_ALL_THREADS");
  return on;
}

// Calls f() on every thread at once. What there is to do is handed out within f, as threads need not be equally fast.
template <typename F>
void on_all_threads(const F& f) {
  if (!all_threads()) return f();
  at::parallel_for(0, at::get_num_threads(), 1, [&](std::int64_t, std::int64_t) { f(); });
}

// Whether threads take small shares of work as they come, instead of one equal share each.
inline bool shares_as_they_come() {
  static const bool on = switched_on("CELLCAM_SHARED_WORK");
  return on;
}

// The numbers below `count`, each for one of the threads that ask.
class Numbers {
 public:
  explicit Numbers(std::int64_t count)
      : count_(count), at_once_(shares_as_they_come() ? 1 : (count + at::get_num_threads() - 1) / at::get_num_threads()) {}
  std::int64_t count() const { return count_; }
  // Calls f(number) until there are no more.
  template <typename F>
  void each(const F& f) {
    for (std::int64_t first; (first = taken_.fetch_add(at_once_)) < count_;) {
      for (std::int64_t i = first; i < std::min(first + at_once_, count_); ++i) f(i);
    }
  }

 private:
  std::int64_t count_, at_once_;
  std::atomic<std::int64_t> taken_ = 0;
};

// Calls f(begin, end) for stretches of [0, count), more of them than threads.
template <typename F>
void for_stretches(std::int64_t count, const F& f) {
  const std::int64_t parts = std::min<std::int64_t>(count, 8 * at::get_num_threads());
  if (parts <= 1 || at::in_parallel_region()) return f(0, count);
  Numbers numbers(parts);
  on_all_threads([&] { numbers.each([&](std::int64_t i) { f(count * i / parts, count * (i + 1) / parts); }); });
}

}  // namespace cellcam::model::fused
