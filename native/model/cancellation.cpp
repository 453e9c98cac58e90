#include "model/cancellation.h"

namespace cellcam::model {

namespace {
thread_local const CancelFlag* current = nullptr;
}

CancellationScope::CancellationScope(const CancelFlag& flag) : outer_(current) { current = &flag; }
CancellationScope::~CancellationScope() { current = outer_; }

Views cancellation_point(const Views& x) {
  const CancelFlag* flag = current;
  if (flag == nullptr) return x;
  if (*flag) throw Cancelled();
  if (x.whole.requires_grad()) {
    x.whole.register_hook([flag](const at::Tensor&) {
      if (*flag) throw Cancelled();
    });
  }
  return x;
}

}  // namespace cellcam::model
