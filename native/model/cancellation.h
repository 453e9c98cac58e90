#pragma once
#include <atomic>
#include <exception>

#include "model/views.h"

namespace cellcam::model {

// Thrown out of a forward or backward pass whose work is no longer wanted.
struct Cancelled : std::exception {
  const char* what() const noexcept override { return "cancelled"; }
};

using CancelFlag = std::atomic<bool>;

// While it lives, the passes of this thread watch `flag` between blocks, so that a process can end within one block's time
// instead of one step's. The flag must outlive the scope and every graph recorded in it.
class CancellationScope {
 public:
  explicit CancellationScope(const CancelFlag& flag);
  ~CancellationScope();
  CancellationScope(const CancellationScope&) = delete;
  CancellationScope& operator=(const CancellationScope&) = delete;

 private:
  const CancelFlag* outer_;
};

// Returns x; throws Cancelled if this thread's flag is set, now or when the gradient comes back through x.
Views cancellation_point(const Views& x);

}  // namespace cellcam::model
